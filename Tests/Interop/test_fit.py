"""`nibble fit` against torch, transformers, PEFT and bitsandbytes: every byte of state, and what autograd saves."""

import functools
import pathlib
import tempfile

import bitsandbytes
import peft
import pytest
import torch
import transformers

from architectures import Case, text

RANK = 64
# bitsandbytes' CPU kernels want widths that are multiples of 64.
SIZES = {"hidden": 64, "intermediate_size": 192, "vocab_size": 320}
CASES = {
    case.name: case
    for case in [
        Case("llama", "LlamaForCausalLM", text(**SIZES)),
        Case("qwen2", "Qwen2ForCausalLM", text(**SIZES, tie_word_embeddings=True)),
        Case("mistral", "MistralForCausalLM", text(**SIZES, layers=3, head_dim=32, sliding_window=32)),
        Case("gemma", "GemmaForCausalLM", text(**SIZES, head_dim=32), torch.float16),
        Case("qwen3", "Qwen3ForCausalLM", text(**SIZES, head_dim=32)),
        Case("llama-biases", "LlamaForCausalLM", text(**SIZES, attention_bias=True, mlp_bias=True)),
    ]
}
SCRATCH = tempfile.TemporaryDirectory(prefix="fit-")
STRATEGIES = ["full", "lora-bf16", "qlora", "qlora-fsdp"]
BATCHES = [(1, 32), (3, 16), (2, 48)]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@functools.cache
def folder(name: str) -> pathlib.Path:
    path = pathlib.Path(SCRATCH.name) / name
    CASES[name].create().save_pretrained(path)
    return path


@functools.cache
def model(name: str, strategy: str, targets="all-linear") -> torch.nn.Module:
    settings = {}
    if strategy.startswith("qlora"):
        settings["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=CASES[name].dtype,
        )
    found = CASES[name].model_class.from_pretrained(folder(name), **settings)
    if strategy != "full":
        found.enable_input_require_grads()
        config = peft.LoraConfig(r=RANK, target_modules=targets, task_type="CAUSAL_LM")
        # FSDP wants parameters of one dtype.
        found = peft.get_peft_model(found, config, autocast_adapter_dtype=strategy != "qlora-fsdp")
        if strategy == "qlora-fsdp":
            for parameter in found.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.to(CASES[name].dtype)
    return found.train()


@functools.cache
def row(nibble, name: str, strategy: str, *options) -> dict:
    report = nibble.json("fit", folder(name), "--lora-rank", RANK, *options)
    return next(row["perGPU"] for row in report["strategies"] if row["name"] == strategy)


def nbytes(tensors) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def quant_state_tensors(state) -> list[torch.Tensor]:
    return [state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]


def step(found: torch.nn.Module, batch: int = 1, sequence: int = 24) -> None:
    tokens = torch.randint(3, 90, (batch, sequence))
    found(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", CASES)
def test_state(nibble, name, strategy):
    found = model(name, strategy)
    expected = row(nibble, name, strategy)
    trained = [p for p in found.parameters() if p.requires_grad]
    frozen = [p for p in found.parameters() if not p.requires_grad]
    states = [p.quant_state for p in frozen if isinstance(p, bitsandbytes.nn.Params4bit)]
    assert bool(states) == strategy.startswith("qlora")
    weights = trained if strategy == "full" else frozen
    assert expected["weights"] == nbytes(weights) + sum(nbytes(quant_state_tensors(state)) for state in states)
    assert expected["adapter"] == (0 if strategy == "full" else nbytes(trained))
    step(found)
    assert expected["gradients"] == nbytes(p.grad for p in trained)
    optimizer = torch.optim.AdamW(trained, lr=0)
    optimizer.step()
    assert expected["optimizer"] == sum(nbytes(state.values()) for state in optimizer.state.values())
    found.zero_grad()


def bitsandbytes_state(kind: type, trained: list[torch.Tensor]) -> int:
    """What the optimizer allocates before its first step; the maps are shared by all parameters."""
    optimizer = kind(trained, lr=0)
    for group in range(len(optimizer.param_groups)):
        for index, parameter in enumerate(optimizer.param_groups[group]["params"]):
            optimizer.init_state(optimizer.param_groups[group], parameter, group, index)
    tensors = {
        value.data_ptr(): value
        for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)
    }
    return nbytes(tensors.values())


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_other_optimizers(nibble, name, strategy):
    trained = [p for p in model(name, strategy).parameters() if p.requires_grad]
    adam8 = row(nibble, name, strategy, "--optimizer", "adamw-8bit")["optimizer"]
    assert adam8 == bitsandbytes_state(bitsandbytes.optim.AdamW8bit, trained)
    paged = row(nibble, name, strategy, "--optimizer", "paged-adamw")["optimizer"]
    assert paged == bitsandbytes_state(bitsandbytes.optim.PagedAdamW32bit, trained)
    step(model(name, strategy))
    sgd = torch.optim.SGD(trained, lr=0)
    sgd.step()
    tensors = [v for state in sgd.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
    assert row(nibble, name, strategy, "--optimizer", "sgd")["optimizer"] == nbytes(tensors)


class Saved:
    """Bytes that autograd saves in one forward pass, by where it saved them: a layer's number, or `head`."""

    def __init__(self, found: torch.nn.Module, batch: int, sequence: int):
        held = [*found.parameters(), *found.buffers()]
        self.known = {tensor.untyped_storage().data_ptr() for tensor in held}
        self.place = "head"
        self.bytes: dict = {}
        self.tensors = []  # alive, so that no address is used again
        layers = next(m for n, m in found.named_modules() if n.endswith("layers") and isinstance(m, torch.nn.ModuleList))
        hooks = []
        for number, layer in enumerate(layers):
            hooks.append(layer.register_forward_pre_hook(functools.partial(self.enter, number)))
            hooks.append(layer.register_forward_hook(functools.partial(self.enter, "head")))
        tokens = torch.randint(3, 90, (batch, sequence))
        with torch.autograd.graph.saved_tensors_hooks(self.pack, lambda tensor: tensor):
            result = found(input_ids=tokens, labels=tokens, use_cache=False)
        for hook in hooks:
            hook.remove()
        result.loss.backward()
        found.zero_grad()

    def enter(self, place, *arguments):
        self.place = place

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.known:
            self.known.add(storage.data_ptr())
            self.tensors.append(tensor)
            self.bytes[self.place] = self.bytes.get(self.place, 0) + storage.nbytes()
        return tensor


def measured(found: torch.nn.Module, batch: int, sequence: int) -> tuple[int, int]:
    """At the peak, without and with gradient checkpointing."""
    plain = Saved(found, batch, sequence).bytes
    found.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    sparse = Saved(found, batch, sequence).bytes
    found.gradient_checkpointing_disable()
    head = sparse.pop("head")
    assert sum(sparse.values()) < sum(plain.values()) - plain["head"]
    # Layers keep their inputs; beside them lives the head's part, then what one layer saves when it runs once more.
    return sum(plain.values()), sum(sparse.values()) + max(head, plain[0])


def compare_activations(nibble, found, name, strategy, batch, sequence, *options):
    options += ("--batch", batch, "--seq-len", sequence)
    plain, sparse = measured(found, batch, sequence)
    planned = row(nibble, name, strategy, *options, "--no-gradient-checkpointing")["activations"]
    # Every tensor has its term; what is left are a few scalars.
    assert planned == pytest.approx(plain, rel=0.001)
    assert row(nibble, name, strategy, *options)["activations"] == pytest.approx(sparse, rel=0.001)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", CASES)
def test_activations(nibble, name, strategy):
    for batch, sequence in BATCHES:
        compare_activations(nibble, model(name, strategy), name, strategy, batch, sequence)


def test_activations_of_some_modules(nibble):
    found = model("llama", "lora-bf16", ("q_proj", "down_proj"))
    compare_activations(nibble, found, "llama", "lora-bf16", 2, 24, "--target-modules", "q_proj,down_proj")
    weights = [p for p in found.parameters() if p.requires_grad]
    assert row(nibble, "llama", "lora-bf16", "--target-modules", "q_proj,down_proj")["adapter"] == nbytes(weights)


@pytest.mark.parametrize("name", CASES)
def test_config_alone_says_the_same(nibble, name):
    whole = nibble.json("fit", folder(name))
    assert nibble.json("fit", folder(name) / "config.json") == whole
    assert nibble.json("fit", folder(name) / "model.safetensors") == whole
    assert whole["parameters"] == sum(p.numel() for p in model(name, "full").parameters())


def test_quantized_checkpoint_says_the_same(nibble, tmp_path):
    nibble.quantize(folder("llama"), tmp_path / "nf4")
    assert nibble.json("fit", tmp_path / "nf4") == nibble.json("fit", folder("llama"))
