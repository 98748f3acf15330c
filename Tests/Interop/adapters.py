"""Tiny PEFT adapters of every kind that a checkpoint can be merged with.

One row is one adapter: a base among the models of architectures.py, the keywords of its LoraConfig, what is done to
the model before PEFT wraps it and to the files after PEFT saved them. Nothing is trained: every trainable parameter
gets seeded noise, so that no `lora_B` is zero and no magnitude is the norm that it started as. Rows are chosen so
that between them come: every field of a LoraConfig that changes the arithmetic of a merge, every kind of key that an
adapter file holds, tied and untied embeddings, Conv1D, fused experts, and the spellings of older and of distributed
runs.
"""

import contextlib
import copy
import dataclasses
import functools
import json
import pathlib
import warnings
from collections.abc import Callable

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

import architectures

AUTO_CLASSES = {
    "CAUSAL_LM": transformers.AutoModelForCausalLM,
    "SEQ_CLS": transformers.AutoModelForSequenceClassification,
    "SEQ_2_SEQ_LM": transformers.AutoModelForSeq2SeqLM,
}
PREFIX = "base_model.model."
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"

# PEFT warns of tied weights, of merges, of flags that it corrects: all of it is meant here.
quiet = functools.partial(warnings.catch_warnings, action="ignore")


@contextlib.contextmanager
def one_thread():
    """Matrices this small are multiplied slower by two."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


def seed(name: str) -> int:
    return sum(name.encode())


class Bases:
    """Base checkpoints by the name of their case, each written once for all tests that ask."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def __getitem__(self, name: str) -> pathlib.Path:
        path = self.folder / name
        if not path.exists():
            architectures.case(name).create().save_pretrained(path)
        return path


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    base: str
    options: dict
    task: str = "CAUSAL_LM"
    vocabulary: int = 0  # how many tokens are added to the embeddings before PEFT sees the model
    autocast: bool = True  # False: the adapter is created, and saved, in the dtype of the base
    converted: bool = False  # saved as the difference to its own initialization, for PiSSA and its like
    written: Callable[[], dict] | None = None  # the tensors of a file that PEFT reads but does not write any more
    config: Callable[[dict], dict] | None = None  # rewrites adapter_config.json, for PEFT and for Nibble
    respell: Callable[[dict], dict] | None = None  # renames the tensors for Nibble; PEFT reads them as it saved them
    unties: bool = False  # the merged checkpoint's output embeddings are not its input embeddings any more
    new_class: bool = False  # the adapter brings a head that is not the base's

    @property
    def case(self) -> architectures.Case:
        return architectures.case(self.base)

    @property
    def auto_class(self) -> type:
        return AUTO_CLASSES[self.task]

    def load_base(self, base: pathlib.Path, dtype: torch.dtype | None = None) -> transformers.PreTrainedModel:
        """The model that PEFT wraps: in the dtype of the checkpoint, resized where the row resizes."""
        torch.manual_seed(seed(self.name))
        model = self.auto_class.from_pretrained(base, dtype=dtype or "auto")
        if self.vocabulary:
            model.resize_token_embeddings(model.config.vocab_size + self.vocabulary)
        return model.eval()

    def create(self, base: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
        """Has PEFT save the adapter, and answers the folder."""
        # A copy: PEFT adds to the containers that it is given.
        options = {"r": 8, "lora_alpha": 16, "task_type": self.task} | copy.deepcopy(self.options)
        with quiet():
            if self.written:
                peft.LoraConfig(**options).save_pretrained(folder)
                save_file(self.written(), folder / WEIGHTS, metadata={"format": "pt"})
            else:
                save_adapter(self, base, peft.LoraConfig(**options), folder)
        if self.config:
            rewrite_config(folder, self.config)
        return folder

    def respelled(self, adapter: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
        """What Nibble is given: the adapter itself, or a copy whose tensors are spelled otherwise."""
        if not self.respell:
            return adapter
        folder.mkdir(parents=True)
        (folder / CONFIG).write_text((adapter / CONFIG).read_text())
        save_file(self.respell(load_file(adapter / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})
        return folder


def save_adapter(row: Row, base: pathlib.Path, config: peft.PeftConfig, folder: pathlib.Path) -> None:
    initialization = getattr(config, "init_lora_weights", None)
    model = peft.get_peft_model(row.load_base(base), config, autocast_adapter_dtype=row.autocast)
    initial = folder.with_name(folder.name + "-initial")
    if row.converted:
        config.init_lora_weights = True
        model.save_pretrained(initial)
        config.init_lora_weights = initialization
    fill(model, seed(row.name))
    model.save_pretrained(
        folder, path_initial_model_for_weight_conversion=str(initial) if row.converted else None)


@torch.no_grad()
def fill(model: nn.Module, number: int) -> None:
    """Adds to every trainable parameter noise of the size that training would."""
    generator = torch.Generator().manual_seed(number)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
            if "lora_magnitude_vector" in name:
                parameter.mul_(1 + 0.1 * noise)
            else:
                parameter.add_(noise * (0.01 if "lora_embedding_A" in name else 0.03))


def rewrite_config(folder: pathlib.Path, change: Callable[[dict], dict]) -> None:
    """In the order of the changed dict: PEFT itself sorts the keys, also those whose order has a meaning."""
    path = folder / CONFIG
    path.write_text(json.dumps(change(json.loads(path.read_text())), indent=2))


# --- rows -----------------------------------------------------------------------------------------------------------


def with_fields(**fields) -> Callable[[dict], dict]:
    return lambda config: config | fields


def only_fields(*names: str) -> Callable[[dict], dict]:
    """What an adapter of PEFT's first versions, or one written by hand, says of itself."""
    return lambda config: {name: config[name] for name in names}


def patterns_in_order(config: dict) -> dict:
    """Two patterns match one module: the first in the file's order counts, which PEFT itself would have sorted."""
    pattern = {"o_proj": 40, **config["alpha_pattern"], r".*\.0\.self_attn\.o_proj": 7}
    assert list(pattern) != sorted(pattern)
    return config | {"alpha_pattern": pattern}


def renamed(*replacements: tuple[str, str]) -> Callable[[dict], dict]:
    def rename(tensors: dict) -> dict:
        found = {}
        for key, tensor in tensors.items():
            for old, new in replacements:
                key = key.replace(old, new)
            found[key] = tensor
        return found

    return rename


def modules_wrapped(tensors: dict) -> dict:
    """As a training state keeps modules_to_save: the trained module under the adapter's name, and the original."""
    found = {}
    for key, tensor in tensors.items():
        module, _, parameter = key.rpartition(".")
        if "lora_" in key:
            found[key] = tensor
        else:
            found[f"{module}.modules_to_save.default.{parameter}"] = tensor
            found[f"{module}.original_module.{parameter}"] = torch.zeros_like(tensor)
    return found


def modules_of_experts() -> dict:
    """Mixtral's experts as the modules that they were in transformers 4, and the router."""
    generator = torch.Generator().manual_seed(4)
    shapes = {"gate": (4, 64)} | {
        f"experts.{expert}.{module}": (64, 128) if module == "w2" else (128, 64)
        for expert in range(4) for module in ("w1", "w2", "w3")
    }
    found = {}
    for layer in range(2):
        for module, (rows, columns) in shapes.items():
            key = f"{PREFIX}model.layers.{layer}.block_sparse_moe.{module}"
            found[f"{key}.lora_A.weight"] = torch.randn(8, columns, generator=generator) * 0.1
            found[f"{key}.lora_B.weight"] = torch.randn(rows, 8, generator=generator) * 0.03
    return found


ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
QUERY_VALUE = {"target_modules": ["q_proj", "v_proj"]}
ALL = {"target_modules": "all-linear"}
CONV1D = {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}
EXPERTS = {"target_modules": [], "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}
TOKENS = [3, 17, 64, 95]
APART = {"embed_tokens": [5, 6], "lm_head": [6, 7, 8]}
PATTERNS = {
    "target_modules": [*ATTENTION, "down_proj"],
    "rank_pattern": {r"layers\.1\..*q_proj": 4, "q_proj": 12, "model.layers.0.self_attn.v_proj": 2},
    "alpha_pattern": {r"layers\.1\..*_proj": 24, "v_proj": 5, "down_proj": 3},
}
BLOCK_DIAGONAL = {"target_modules_bd_a": ["o_proj"], "target_modules_bd_b": ["q_proj"], "nblocks": 2,
                  "match_strict": False}

ROWS = [
    Row("plain-bf16", "llama", ALL),
    Row("plain-f16", "qwen3", ALL),
    Row("plain-f32", "llama-biases-f32", ALL),
    Row("saved-in-bf16", "llama", ALL, autocast=False),
    Row("saved-in-f16", "llama-tied-f16", ALL, autocast=False),
    Row("rslora", "llama", ALL | {"use_rslora": True, "r": 6}),
    Row("gaussian", "llama", QUERY_VALUE | {"init_lora_weights": "gaussian"}),
    Row("orthogonal", "qwen3", QUERY_VALUE | {"init_lora_weights": "orthogonal"}),
    Row("layers", "qwen3", {"target_modules": ATTENTION, "layers_to_transform": [1], "layers_pattern": "layers"}),
    Row("encoder-decoder", "t5", {"target_modules": ["q", "v", "wo"]}, task="SEQ_2_SEQ_LM"),
    Row("few-fields", "llama", QUERY_VALUE, config=only_fields("peft_type", "r", "lora_alpha", "target_modules")),
    Row("patterns", "llama", PATTERNS),
    Row("patterns-rslora", "qwen3", PATTERNS | {"use_rslora": True}),
    Row("patterns-in-order", "llama", PATTERNS, config=patterns_in_order),

    # [in, out] in the file, some of them square. The flag is PEFT's to correct: only the module's kind tells.
    Row("conv1d", "gpt2", CONV1D),
    Row("conv1d-unflagged", "gpt2", CONV1D, config=with_fields(fan_in_fan_out=False)),
    Row("linear-flagged", "llama", ALL, config=with_fields(fan_in_fan_out=True)),

    Row("dora", "llama", ALL | {"use_dora": True}),
    Row("dora-f16", "qwen3", {"target_modules": ATTENTION, "use_dora": True, "use_rslora": True}),
    Row("dora-f32", "llama-biases-f32", ALL | {"use_dora": True}),
    Row("dora-saved-in-bf16", "llama", ALL | {"use_dora": True}, autocast=False),
    Row("dora-conv1d", "gpt2", CONV1D | {"use_dora": True}),
    Row("dora-embedding", "llama", {"target_modules": ["embed_tokens", "q_proj"], "use_dora": True}),

    Row("embedding", "llama", {"target_modules": ["embed_tokens", "lm_head", "q_proj"]}),
    Row("embedding-tied", "qwen2", {"target_modules": ["embed_tokens", "q_proj"]}, unties=True),
    Row("embedding-tied-f32", "gemma", {"target_modules": ["embed_tokens"], "use_rslora": True}, unties=True),
    # PEFT saves a targeted `embed_tokens` in full, but not a `wte`.
    Row("embedding-tied-wte", "gpt2", {"target_modules": ["wte"]}, unties=True),
    Row("head-tied", "llama-tied-f16", {"target_modules": ["lm_head", "v_proj"]}, unties=True),
    Row("both-tied", "qwen2", {"target_modules": ["embed_tokens", "lm_head"]}, unties=True),
    Row("tie-kept-f32", "gemma", {"target_modules": ["embed_tokens"], "ensure_weight_tying": True}),
    Row("tie-kept-bf16", "qwen2", {"target_modules": ["embed_tokens", "q_proj"], "ensure_weight_tying": True},
        autocast=False),
    # The tied factors are one storage until PEFT widens each to float32: two adapters are trained, and saved.
    Row("tie-lost", "qwen2", {"target_modules": ["embed_tokens", "q_proj"], "ensure_weight_tying": True}, unties=True),

    Row("lora-bias", "llama-biases-f32", ALL | {"lora_bias": True}),
    Row("lora-bias-bf16", "qwen2", {"target_modules": ["q_proj", "k_proj", "v_proj"], "lora_bias": True}),
    Row("bias-all", "gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True, "bias": "all"}),
    Row("bias-all-of-llama", "llama-biases-f32", QUERY_VALUE | {"bias": "all"}),
    Row("bias-lora-only", "qwen2", {"target_modules": ["q_proj", "o_proj"], "bias": "lora_only"}),

    Row("save-head", "llama", QUERY_VALUE | {"modules_to_save": ["lm_head"]}),
    Row("save-embedding", "llama", QUERY_VALUE | {"modules_to_save": ["embed_tokens"]}),
    Row("save-norms", "llama", QUERY_VALUE | {"modules_to_save": ["input_layernorm", "norm"]}),
    Row("save-head-tied", "qwen2", QUERY_VALUE | {"modules_to_save": ["lm_head"]}, unties=True),
    Row("save-embedding-tied", "llama-tied-f16", QUERY_VALUE | {"modules_to_save": ["embed_tokens"]}, unties=True),
    Row("save-both-tied", "qwen2", QUERY_VALUE | {"modules_to_save": ["embed_tokens", "lm_head"]}, unties=True),
    Row("save-tie-kept", "qwen2", QUERY_VALUE | {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}),
    Row("classifier", "llama-classifier", QUERY_VALUE, task="SEQ_CLS"),
    Row("classifier-bert", "bert-classifier", {"target_modules": ["query", "dense"]}, task="SEQ_CLS"),
    Row("classifier-new", "llama", QUERY_VALUE, task="SEQ_CLS", new_class=True),

    Row("tokens", "llama", QUERY_VALUE | {"trainable_token_indices": TOKENS}),
    Row("tokens-by-layer", "llama", QUERY_VALUE | {"trainable_token_indices": {"embed_tokens": TOKENS}}),
    Row("tokens-tied", "qwen2", QUERY_VALUE | {"trainable_token_indices": TOKENS}),
    Row("tokens-by-layer-tied", "llama-tied-f16", QUERY_VALUE | {"trainable_token_indices": {"embed_tokens": TOKENS}}),
    Row("tokens-apart", "llama", QUERY_VALUE | {"trainable_token_indices": APART}),
    Row("tokens-apart-tied", "llama-tied-f16", QUERY_VALUE | {"trainable_token_indices": APART}, unties=True),

    Row("resized", "llama", QUERY_VALUE, vocabulary=8),
    Row("resized-tied", "qwen2", QUERY_VALUE, vocabulary=8),
    Row("resized-save", "llama", QUERY_VALUE | {"modules_to_save": ["embed_tokens", "lm_head"]}, vocabulary=8),
    Row("resized-targeted", "llama", {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}, vocabulary=8),
    Row("resized-targeted-tied", "qwen2", {"target_modules": ["q_proj", "embed_tokens"]}, vocabulary=8, unties=True),
    Row("resized-tokens-tied", "qwen2", QUERY_VALUE | {"trainable_token_indices": [*range(90, 104)]}, vocabulary=8),

    Row("experts", "mixtral", EXPERTS),
    Row("experts-and-attention", "mixtral", EXPERTS | {"target_modules": ATTENTION, "use_rslora": True, "r": 4}),
    Row("experts-down", "mixtral", {"target_modules": [], "target_parameters": ["mlp.experts.down_proj"]}),
    Row("experts-up", "mixtral", {"target_modules": [], "target_parameters": ["experts.gate_up_proj"]}),
    Row("experts-qwen3", "qwen3-moe", EXPERTS | {"target_modules": ["o_proj"]}),
    # PEFT targets the stacked experts itself, with twice the rank for those made of two.
    Row("experts-all-linear", "mixtral", ALL),
    Row("experts-transposed", "gpt-oss", EXPERTS | {"target_modules": ["q_proj"]}),
    Row("experts-as-modules", "mixtral", {"target_modules": ["w1", "w2", "w3", "gate"]}, written=modules_of_experts),
    Row("router", "mixtral", {"target_modules": ["q_proj"], "target_parameters": ["mlp.gate.weight"]}),

    Row("replicated", "llama", ALL | {"layer_replication": [[0, 2], [0, 1], [1, 2]]}),
    Row("pissa", "llama", ALL | {"init_lora_weights": "pissa"}, converted=True),
    Row("pissa-iterated", "llama-biases-f32", QUERY_VALUE | {"init_lora_weights": "pissa_niter_4"}, converted=True),
    Row("olora", "qwen3", {"target_modules": ATTENTION, "init_lora_weights": "olora", "use_rslora": True},
        converted=True),
    # Without GPTQ the flag does nothing: A is as wide as the module, and the adapter is plain LoRA.
    Row("qalora-flag-only", "llama", QUERY_VALUE | {"use_qalora": True, "qalora_group_size": 8}),
    Row("block-diagonal", "llama", {"target_modules": ATTENTION, "use_bdlora": BLOCK_DIAGONAL}),
    Row("mica", "llama", QUERY_VALUE | {"init_lora_weights": "mica"}),
    Row("monteclora", "llama", QUERY_VALUE | {"monteclora_config": {"num_samples": 2}}),
    Row("velora", "llama", QUERY_VALUE | {"velora_config": {}}),

    Row("spelled-with-adapter", "llama", ALL, respell=renamed((".weight", ".default.weight"))),
    Row("spelled-by-fsdp", "llama", ALL, respell=renamed(
        (".model.layers", "._fsdp_wrapped_module.model.layers"), (".self_attn.", "._fsdp_wrapped_module.self_attn."))),
    Row("spelled-by-compile", "llama", ALL, respell=renamed(
        (PREFIX, "_orig_mod." + PREFIX), (".mlp.", "._orig_mod.mlp."))),
    Row("spelled-modules", "llama", QUERY_VALUE | {"modules_to_save": ["lm_head", "norm"]}, respell=modules_wrapped),
    Row("spelled-magnitude", "llama", {"target_modules": ATTENTION, "use_dora": True},
        respell=renamed(("lora_magnitude_vector", "lora_magnitude_vector.weight"))),
]


def row(name: str) -> Row:
    return next(row for row in ROWS if row.name == name)
