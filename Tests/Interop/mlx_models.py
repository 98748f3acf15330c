"""Tiny models of the classes that mlx-lm loads, with random weights, and what its own converter makes of them."""

import contextlib
import dataclasses
import io
import json
import pathlib
import shutil

import mlx.core as mx
import mlx_lm
import pytest
from safetensors.torch import load_file, save_file

from architectures import EXPERTS, F16, F32, Case, text
from gguf_families import as_transformers_4
from tool import ROOT

TOKENIZER = ROOT / "fixtures" / "sql-llama"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json")

# A scheme, the group size, and what mlx-lm's converter is told for it.
SCHEMES = {
    "mlx-q2": {"q_bits": 2}, "mlx-q3": {"q_bits": 3}, "mlx-q4": {"q_bits": 4}, "mlx-q5": {"q_bits": 5},
    "mlx-q6": {"q_bits": 6}, "mlx-q8": {"q_bits": 8}, "mlx-mxfp4": {"q_bits": 4, "q_mode": "mxfp4"},
}


@dataclasses.dataclass(frozen=True)
class Model(Case):
    """`config.json` has the names that it had before transformers 5, which mlx-lm reads in every class, and says
    `torch_dtype`, unless `is_new`; `change` are members to be set, or removed if None. Names are stored without
    `prefix`, as mlx-lm wants those of some classes."""

    is_new: bool = False
    change: dict = dataclasses.field(default_factory=dict)
    generation: dict | None = None
    prefix: str = ""

    def save(self, folder: pathlib.Path) -> pathlib.Path:
        out = folder / self.name
        self.create().save_pretrained(out)
        for name in TOKENIZER_FILES:
            shutil.copyfile(TOKENIZER / name, out / name)
        (out / "generation_config.json").unlink(missing_ok=True)
        if self.generation:
            (out / "generation_config.json").write_text(json.dumps(self.generation))
        if self.prefix:
            tensors = load_file(out / "model.safetensors")
            tensors = {name.removeprefix(self.prefix): tensor for name, tensor in tensors.items()}
            save_file(tensors, out / "model.safetensors", {"format": "pt"})
        config = json.loads((out / "config.json").read_text())
        config = config if self.is_new else as_transformers_4(config)
        for key, value in self.change.items():
            config.pop(key, None)
            if value is not None:
                config[key] = value
        (out / "config.json").write_text(json.dumps(config))
        return out


MODELS = [
    Model("llama", "LlamaForCausalLM", text(128)),
    Model("llama-new", "LlamaForCausalLM", text(), is_new=True, long=True),
    Model("llama-tied", "LlamaForCausalLM", text(tie_word_embeddings=True), F16,
          generation={"eos_token_id": [2, 3], "temperature": 0.6}),
    Model("llama-biases", "LlamaForCausalLM", text(attention_bias=True, mlp_bias=True), F32),
    # 96 is whole groups of 32, and of 64 it is not: o_proj and down_proj stay.
    Model("llama-odd", "LlamaForCausalLM", text(96, intermediate_size=160)),
    # Rounded on the way.
    Model("llama-cast", "LlamaForCausalLM", text(), F32, change={"torch_dtype": "bfloat16"}, long=True),
    Model("mistral", "MistralForCausalLM", text(head_dim=32, sliding_window=8), long=True),
    Model("mixtral", "MixtralForCausalLM", text(num_local_experts=4, num_experts_per_tok=2)),
    Model("qwen2", "Qwen2ForCausalLM", text(tie_word_embeddings=True)),
    Model("qwen2-moe", "Qwen2MoeForCausalLM", text(**EXPERTS, shared_expert_intermediate_size=128)),
    Model("qwen3", "Qwen3ForCausalLM", text(head_dim=32), F16),
    Model("qwen3-moe", "Qwen3MoeForCausalLM", text(**EXPERTS, head_dim=32), change={"num_experts": 4}),
    Model("qwen3-moe-dense", "Qwen3MoeForCausalLM", text(**EXPERTS, layers=3, head_dim=32, mlp_only_layers=[0]),
          change={"num_experts": 4}, long=True),
    Model("gemma", "GemmaForCausalLM", text(head_dim=16, tie_word_embeddings=True), F32),
    Model("gemma2", "Gemma2ForCausalLM", text(head_dim=32, sliding_window=8), long=True),
    Model("gemma3-text", "Gemma3ForCausalLM", text(head_dim=32, sliding_window=8), change={"sliding_window_pattern": 2}),
    Model("phi", "PhiForCausalLM", text(), F16, long=True),
    Model("phi3", "Phi3ForCausalLM", text(), change={"rope_scaling": None}),
    Model("granite", "GraniteForCausalLM", text(logits_scaling=8.0)),
    Model("olmo2", "Olmo2ForCausalLM", text(), F32, long=True),
    Model("olmo3", "Olmo3ForCausalLM", text(layers=4), long=True),
    Model("olmoe", "OlmoeForCausalLM", text(num_experts=4, num_experts_per_tok=2), long=True),
    Model("smollm3", "SmolLM3ForCausalLM", text(), long=True),
    Model("starcoder2", "Starcoder2ForCausalLM", text()),
    Model("cohere", "CohereForCausalLM", text(), long=True),
    Model("cohere2", "Cohere2ForCausalLM", text(sliding_window=8), change={"sliding_window_pattern": 2}, long=True),
    Model("glm", "GlmForCausalLM", text(head_dim=16), long=True),
    Model("glm4", "Glm4ForCausalLM", text(head_dim=16), change={"partial_rotary_factor": 0.5}, long=True),
    Model("nemotron", "NemotronForCausalLM", text(), long=True),
    Model("seed-oss", "SeedOssForCausalLM", text(head_dim=16), long=True),
    Model("ernie", "Ernie4_5ForCausalLM", text(head_dim=16), long=True),
    Model("exaone4", "Exaone4ForCausalLM", text(layers=4, head_dim=16, sliding_window=8),
          change={"sliding_window_pattern": "LLLG"}, long=True),
    Model("gpt2", "GPT2LMHeadModel",
          {"vocab_size": 96, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "n_ctx": 64},
          prefix="transformer."),
]


def rows() -> list:
    """The models, those of rarer classes for long runs."""
    return [pytest.param(model, id=model.name, marks=[pytest.mark.long] * model.long) for model in MODELS]


def model(name: str) -> Model:
    return next(model for model in MODELS if model.name == name)


class Models:
    """Directories of the models, each made when it is first asked for."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def directory(self, model: Model) -> pathlib.Path:
        made = self.folder / model.name
        return made if made.exists() else model.save(self.folder)


def convert(source: pathlib.Path, out: pathlib.Path, scheme: str, group: int | None) -> pathlib.Path:
    """By mlx-lm's own converter."""
    with contextlib.redirect_stdout(io.StringIO()):
        mlx_lm.convert(str(source), str(out), quantize=True, q_group_size=group, **SCHEMES[scheme])
    return out


def logits(folder: pathlib.Path) -> mx.array:
    """Of a few tokens, by the model as mlx-lm loads it."""
    model, _ = mlx_lm.load(str(folder))
    return model(mx.array([[3, 17, 42, 5, 88, 64, 29, 11]]))
