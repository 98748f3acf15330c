"""Tiny models of the families that have a GGUF form, with random weights and a tokenizer, as directories.

Rows vary what changes keys or tensors: tied and untied embeddings, biases, stated head lengths, rope scalings, windows,
experts, and what a model card and recommendations for sampling put into `general.*`.
"""

import dataclasses
import json
import pathlib
import shutil

import gguf_oracle
import tokenizers_of_families
from architectures import EXPERTS, F16, F32, VISION, Case, text
from tool import ROOT

TOKENIZER = ROOT / "fixtures/sql-llama"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json")

CARD = """---
license: apache-2.0
license_link: https://example.org/LICENSE # where it is
language:
- en
- "no"
tags: [text-generation, 'tiny, random']
pipeline_tag: text-generation
base_model:
- acme-labs/base-model-7B-v1.5
- https://huggingface.co/acme/other-instruct
datasets: acme/some-data
model_creator: Somebody
description: >-
  Two lines
  of text

  and one more
---
# A model
"""


@dataclasses.dataclass(frozen=True)
class Family(Case):
    """`card` and `generation` become README.md and generation_config.json; `remove` are keys config.json is without;
    `directory` is the name of the model's; `tokenizer` is one of those of families, the fixture's if none."""

    card: str | None = None
    generation: dict | None = None
    remove: tuple[str, ...] = ()
    directory: str = "tiny-random-model"
    tokenizer: str | None = None

    @property
    def pre(self) -> str:
        """What llama.cpp's converter calls the tokenizer's way to cut words; it asks only about a byte-level one."""
        return tokenizers_of_families.PRE.get(self.tokenizer, "default")

    def save(self, folder: pathlib.Path) -> pathlib.Path:
        """Makes the model in a directory of its own under `folder`."""
        out = folder / self.name / self.directory
        self.create().save_pretrained(out)
        changed = {}
        if self.tokenizer:
            for name, content in tokenizers_of_families.files(self.tokenizer).items():
                (out / name).write_bytes(content if isinstance(content, bytes) else content.encode())
            for role, number in tokenizers_of_families.roles(self.tokenizer).items():
                changed[f"{role}_token_id"] = number
        else:
            for name in TOKENIZER_FILES:
                shutil.copyfile(TOKENIZER / name, out / name)
        (out / "generation_config.json").unlink(missing_ok=True)
        if self.card:
            (out / "README.md").write_text(self.card)
        if self.generation:
            (out / "generation_config.json").write_text(json.dumps(self.generation))
        config = json.loads((out / "config.json").read_text()) | changed
        (out / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k not in self.remove}))
        return out


def sizes(**other) -> dict:
    """As large as the fixture's tokenizer needs."""
    return text(vocab_size=1024, max_position_embeddings=256, **other)


LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
YARN = {"rope_type": "yarn", "rope_theta": 1000000.0, "factor": 4.0, "original_max_position_embeddings": 64,
        "beta_fast": 32.0, "beta_slow": 1.0}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
LONG = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 64,
        "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7],
        "long_factor": [2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.5]}
GPT2 = {"vocab_size": 1024, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256, "n_ctx": 256}

FAMILIES = [
    Family("llama", "LlamaForCausalLM", sizes()),
    Family("llama-llama3-tied", "LlamaForCausalLM", sizes(tie_word_embeddings=True, rope_parameters=LLAMA3), F16,
           directory="Tiny-Llama-3.2-1B-Instruct", tokenizer="llama3",
           generation={"temperature": 0.6, "top_p": 0.9, "top_k": 50}),
    Family("llama-biases-linear", "LlamaForCausalLM",
           sizes(attention_bias=True, mlp_bias=True, head_dim=32, rope_parameters=LINEAR), F32,
           card=CARD, directory="model-8x7b1_x"),
    Family("llama-defaults", "LlamaForCausalLM", sizes(num_key_value_heads=4),
           remove=("num_key_value_heads", "rms_norm_eps", "rope_parameters", "head_dim", "tie_word_embeddings")),
    Family("mistral", "MistralForCausalLM", sizes(head_dim=32, sliding_window=8), directory="Mistral-7B-v0.1"),
    Family("mixtral", "MixtralForCausalLM", sizes(num_local_experts=4, num_experts_per_tok=2)),
    Family("qwen2", "Qwen2ForCausalLM", sizes(tie_word_embeddings=True), directory="qwen2.5-coder-0.1m",
           tokenizer="qwen2"),
    Family("qwen2-yarn", "Qwen2ForCausalLM", sizes(rope_parameters=YARN), F16),
    Family("qwen2-moe", "Qwen2MoeForCausalLM", sizes(**EXPERTS, shared_expert_intermediate_size=96), tokenizer="qwen2"),
    Family("qwen3", "Qwen3ForCausalLM", sizes(head_dim=32), F16,
           generation={"temperature": 1, "top_k": 20, "repetition_penalty": 1.05, "min_p": None}),
    Family("qwen3-moe", "Qwen3MoeForCausalLM", sizes(**EXPERTS, head_dim=32, norm_topk_prob=True),
           tokenizer="qwen3-moe"),
    Family("gemma", "GemmaForCausalLM", sizes(head_dim=16), F32, tokenizer="gemma"),
    Family("gemma2", "Gemma2ForCausalLM", sizes(head_dim=32, sliding_window=8), tokenizer="gemma2"),
    Family("gemma3", "Gemma3ForCausalLM", sizes(head_dim=32, sliding_window=8), tokenizer="gemma3"),
    Family("gemma3-scaled", "Gemma3ForCausalLM", sizes(
        head_dim=32, sliding_window=8, final_logit_softcapping=30.0, rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 20000.0}}), tokenizer="gemma3"),
    Family("gemma3-vision", "Gemma3ForConditionalGeneration", {
        "text_config": sizes(head_dim=32, sliding_window=8), "vision_config": VISION, "mm_tokens_per_image": 4,
        "image_token_index": 1000, "boi_token_index": 1001, "eoi_token_index": 1002}, tokenizer="gemma3"),
    Family("llama-headless", "LlamaModel", sizes()),
    Family("phi3", "Phi3ForCausalLM", sizes(), tokenizer="phi3"),
    Family("phi3-long", "Phi3ForCausalLM", sizes(
        original_max_position_embeddings=64, rope_parameters=LONG, sliding_window=32), tokenizer="phi3"),
    Family("starcoder2", "Starcoder2ForCausalLM", sizes(), tokenizer="starcoder2"),
    Family("gpt2", "GPT2LMHeadModel", GPT2, tokenizer="gpt2"),
    Family("granite", "GraniteForCausalLM", sizes(
        attention_bias=True, embedding_multiplier=12.0, attention_multiplier=0.015625, residual_multiplier=0.22,
        logits_scaling=8.0), tokenizer="granite"),
    Family("olmo2", "Olmo2ForCausalLM", sizes(), F32, tokenizer="olmo2"),
    Family("smollm3", "SmolLM3ForCausalLM", sizes(), tokenizer="smollm3"),
]


def as_transformers_4(config: dict) -> dict:
    """The names that config.json had before ropes were gathered in `rope_parameters`."""
    config = config | {"transformers_version": "4.57.1"}
    if "text_config" in config:
        config["text_config"] = as_transformers_4(config["text_config"])
    if "dtype" in config:
        config["torch_dtype"] = config.pop("dtype")
    rope = config.pop("rope_parameters", {})
    if "full_attention" in rope:
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    if "rope_theta" in rope:
        config["rope_theta"] = rope["rope_theta"]
    if config["model_type"] == "phi3" and scaling:
        scaling["type"] = scaling.pop("rope_type")
    config["rope_scaling"] = None if scaling.get("rope_type") == "default" else scaling or None
    return config


class Models:
    """Directories of the models, and what llama.cpp's converter makes of them; each made when it is first asked for."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def directory(self, family: Family) -> pathlib.Path:
        made = self.folder / family.name / family.directory
        return made if made.exists() else family.save(self.folder)

    def converted(self, family: Family, outtype: str) -> pathlib.Path:
        out = self.folder / family.name / f"{outtype}.gguf"
        return out if out.exists() else gguf_oracle.convert(self.directory(family), out, outtype, family.pre)


def family(name: str) -> Family:
    return next(family for family in FAMILIES if family.name == name)
