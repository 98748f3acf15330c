"""`nibble fit` against torch, transformers, PEFT and bitsandbytes: every byte of state, and what autograd saves."""

import functools
import pathlib
import tempfile

import bitsandbytes
import peft
import pytest
import torch
import transformers

from architectures import F16, Case, text

RANK = 64
CARDS = 2
# bitsandbytes' CPU kernels want widths that are multiples of 64.
SIZES = {"hidden": 64, "intermediate_size": 192, "vocab_size": 320}
EXPERTS = {"num_experts_per_tok": 3, "moe_intermediate_size": 64}
QWEN = EXPERTS | {"num_experts": 8}
DEEPSEEK = EXPERTS | {
    "n_routed_experts": 8, "first_k_dense_replace": 1, "kv_lora_rank": 64, "qk_rope_head_dim": 32,
    "qk_nope_head_dim": 32, "num_key_value_heads": 4, "n_shared_experts": 2, "n_group": 2, "topk_group": 1,
}
GPT2 = {"vocab_size": 320, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}
CASES = {
    case.name: case
    for case in [
        Case("llama", "LlamaForCausalLM", text(**SIZES)),
        Case("llama-biases", "LlamaForCausalLM", text(**SIZES, attention_bias=True, mlp_bias=True)),
        Case("mistral", "MistralForCausalLM", text(**SIZES, layers=3, head_dim=32, sliding_window=32)),
        Case("mixtral", "MixtralForCausalLM",
             text(**SIZES, num_local_experts=8, num_experts_per_tok=3, sliding_window=32)),
        Case("qwen2", "Qwen2ForCausalLM", text(**SIZES, tie_word_embeddings=True)),
        Case("qwen2-windows", "Qwen2ForCausalLM",
             text(**SIZES, use_sliding_window=True, sliding_window=32, max_window_layers=1)),
        # bitsandbytes' CPU kernels refuse its gate of width one.
        Case("qwen2-moe", "Qwen2MoeForCausalLM",
             text(**SIZES, **QWEN, shared_expert_intermediate_size=128, mlp_only_layers=[1]), run=False),
        Case("qwen3", "Qwen3ForCausalLM", text(**SIZES, head_dim=32)),
        Case("qwen3-moe", "Qwen3MoeForCausalLM",
             text(**SIZES, **QWEN, layers=3, head_dim=32, norm_topk_prob=True, mlp_only_layers=[1])),
        Case("gemma", "GemmaForCausalLM", text(**SIZES, head_dim=32), F16),
        Case("gemma2", "Gemma2ForCausalLM", text(**SIZES, head_dim=32, sliding_window=32)),
        Case("gemma3", "Gemma3ForCausalLM", text(**SIZES, layers=6, head_dim=32, sliding_window=32)),
        Case("phi3", "Phi3ForCausalLM", text(**SIZES, sliding_window=32)),
        Case("starcoder2", "Starcoder2ForCausalLM", text(**SIZES, sliding_window=32)),
        Case("starcoder2-dropout", "Starcoder2ForCausalLM",
             text(**SIZES, residual_dropout=0.1, embedding_dropout=0.1, attention_dropout=0.1)),
        Case("gpt2", "GPT2LMHeadModel", GPT2),
        Case("gpt2-no-dropout", "GPT2LMHeadModel", GPT2 | {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}),
        Case("granite", "GraniteForCausalLM", text(**SIZES, attention_multiplier=0.25, residual_multiplier=0.5)),
        Case("olmo2", "Olmo2ForCausalLM", text(**SIZES)),
        Case("smollm3", "SmolLM3ForCausalLM", text(**SIZES, layers=4, use_sliding_window=True, sliding_window=32)),
        Case("glm", "GlmForCausalLM", text(**SIZES, head_dim=32)),
        Case("glm4", "Glm4ForCausalLM", text(**SIZES, head_dim=32)),
        Case("cohere", "CohereForCausalLM", text(**SIZES, use_qk_norm=True)),
        Case("cohere2", "Cohere2ForCausalLM", text(**SIZES, layers=4, sliding_window=32)),
        # transformers leaves Falcon's layers in 16 bits.
        Case("falcon", "FalconForCausalLM", text(**SIZES, multi_query=True), quantizes=False),
        Case("falcon-new", "FalconForCausalLM",
             text(**SIZES, new_decoder_architecture=True, num_kv_heads=2, bias=True), quantizes=False),
        Case("falcon-heads", "FalconForCausalLM", text(**SIZES, multi_query=False), quantizes=False),
        Case("falcon-alibi", "FalconForCausalLM",
             text(**SIZES, alibi=True, multi_query=False, parallel_attn=False, bias=True), quantizes=False),
        Case("deepseek-v2", "DeepseekV2ForCausalLM",
             text(**SIZES, **DEEPSEEK, q_lora_rank=None, v_head_dim=32, topk_method="group_limited_greedy")),
        Case("deepseek-v3", "DeepseekV3ForCausalLM", text(**SIZES, **DEEPSEEK, q_lora_rank=64, v_head_dim=64)),
        Case("gpt-oss", "GptOssForCausalLM",
             text(**SIZES, num_local_experts=8, num_experts_per_tok=3, head_dim=32, sliding_window=32)),
        Case("llama4", "Llama4ForCausalLM",
             text(**SIZES, layers=4, num_local_experts=8, head_dim=32, intermediate_size_mlp=256,
                  interleave_moe_layer_step=2, attention_chunk_size=32), run=False),
    ]
}
# PEFT's all-linear also takes Llama 4's routers, which then fail.
TARGETS = {"llama4": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")}
SCRATCH = tempfile.TemporaryDirectory(prefix="fit-")
STRATEGIES = ["full", "lora-bf16", "qlora", "qlora-fsdp"]
ROWS = [
    (name, strategy) for name, case in CASES.items() for strategy in STRATEGIES
    if case.run or not strategy.startswith("qlora")
]
BATCHES = [(1, 32), (3, 16), (2, 48)]
# These with every strategy and every shape; of the others what differs.
THOROUGH = ["llama", "mistral", "qwen2", "gemma"]


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
def model(name: str, strategy: str, targets=None) -> torch.nn.Module:
    targets = targets or TARGETS.get(name, "all-linear")
    settings = {}
    if strategy.startswith("qlora"):
        settings["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=CASES[name].dtype,
        )
    found = CASES[name].model_class.from_pretrained(folder(name), **settings)
    if strategy != "full":
        found.enable_input_require_grads()
        config = peft.LoraConfig(r=RANK, target_modules=targets if isinstance(targets, str) else list(targets), task_type="CAUSAL_LM")
        # FSDP wants parameters of one dtype.
        found = peft.get_peft_model(found, config, autocast_adapter_dtype=strategy != "qlora-fsdp")
        if strategy == "qlora-fsdp":
            for parameter in found.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.to(CASES[name].dtype)
    return found.train()


@functools.cache
def row(nibble, name: str, strategy: str, *options) -> dict:
    # Of one card it is not offered, of several each has a part.
    cards = ("--gpus", f"{CARDS}x24GiB") if strategy == "qlora-fsdp" else ()
    report = nibble.json("fit", folder(name), "--lora-rank", RANK, *cards, *options)
    return next(row["perGPU"] for row in report["strategies"] if row["name"] == strategy)


def nbytes(tensors) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def quant_state_tensors(state) -> list[torch.Tensor]:
    return [state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]


def step(found: torch.nn.Module, batch: int = 1, sequence: int = 24) -> None:
    tokens = torch.randint(3, 90, (batch, sequence))
    found(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()


def part(strategy: str, number: int) -> int:
    """Of one card."""
    return -(-number // CARDS) if strategy == "qlora-fsdp" else number


@pytest.mark.parametrize("name, strategy", ROWS)
def test_state(nibble, name, strategy):
    found = model(name, strategy)
    expected = row(nibble, name, strategy)
    trained = [p for p in found.parameters() if p.requires_grad]
    frozen = [p for p in found.parameters() if not p.requires_grad]
    states = [p.quant_state for p in frozen if isinstance(p, bitsandbytes.nn.Params4bit)]
    assert bool(states) == (strategy.startswith("qlora") and CASES[name].quantizes)
    weights = trained if strategy == "full" else frozen
    statistics = sum(nbytes(quant_state_tensors(state)) for state in states)
    assert expected["weights"] == part(strategy, nbytes(weights)) + statistics
    assert expected["adapter"] == (0 if strategy == "full" else part(strategy, nbytes(trained)))
    step(found)
    assert expected["gradients"] == part(strategy, nbytes(p.grad for p in trained))
    optimizer = torch.optim.AdamW(trained, lr=0)
    optimizer.step()
    state = sum(nbytes(state.values()) for state in optimizer.state.values())
    assert expected["optimizer"] == part(strategy, state)
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
    assert adam8 == part(strategy, bitsandbytes_state(bitsandbytes.optim.AdamW8bit, trained))
    paged = row(nibble, name, strategy, "--optimizer", "paged-adamw")["optimizer"]
    assert paged == part(strategy, bitsandbytes_state(bitsandbytes.optim.PagedAdamW32bit, trained))
    step(model(name, strategy))
    sgd = torch.optim.SGD(trained, lr=0)
    sgd.step()
    tensors = [v for state in sgd.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
    assert row(nibble, name, strategy, "--optimizer", "sgd")["optimizer"] == part(strategy, nbytes(tensors))


class Saved:
    """Bytes that autograd saves in one forward pass, by where it saved them: a layer's number, or `head`.

    `bytes` counts a tensor where it is saved first, `own` in every layer that saves it.
    """

    def __init__(self, found: torch.nn.Module, batch: int, sequence: int):
        held = [*found.parameters(), *found.buffers()]
        self.held = {tensor.untyped_storage().data_ptr() for tensor in held}
        self.place = "head"
        self.seen: dict = {}
        self.bytes: dict = {}
        self.own: dict = {}
        self.tensors = []  # alive, so that no address is used again
        layers = next(
            m for n, m in found.named_modules() if n.endswith(("layers", ".h")) and isinstance(m, torch.nn.ModuleList))
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
        address = storage.data_ptr()
        if address not in self.held and self.place not in self.seen.setdefault(address, []):
            self.tensors.append(tensor)
            self.own[self.place] = self.own.get(self.place, 0) + storage.nbytes()
            if not self.seen[address]:
                self.bytes[self.place] = self.bytes.get(self.place, 0) + storage.nbytes()
            self.seen[address].append(self.place)
        return tensor


def measured(found: torch.nn.Module, batch: int, sequence: int) -> tuple[int, int]:
    """At the peak, without and with gradient checkpointing."""
    plain = Saved(found, batch, sequence)
    found.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    sparse = Saved(found, batch, sequence).bytes
    found.gradient_checkpointing_disable()
    head = sparse.pop("head")
    assert sum(sparse.values()) < sum(plain.bytes.values()) - plain.bytes["head"]
    # Layers keep their inputs; beside them lives the head's part, then what one layer saves when it runs once more.
    layers = [number for place, number in plain.own.items() if place != "head"]
    return sum(plain.bytes.values()), sum(sparse.values()) + max(head, *layers)


def compare_activations(nibble, found, name, strategy, batch, sequence, *options):
    options += ("--batch", batch, "--seq-len", sequence)
    plain, sparse = measured(found, batch, sequence)
    planned = row(nibble, name, strategy, *options, "--no-gradient-checkpointing")["activations"]
    # Every tensor has its term; what is left are a few scalars.
    assert planned == pytest.approx(plain, rel=0.001)
    assert row(nibble, name, strategy, *options)["activations"] == pytest.approx(sparse, rel=0.001)


@pytest.mark.parametrize("name, strategy", [row for row in ROWS if row[0] in THOROUGH or row[1] != "qlora"])
def test_activations(nibble, name, strategy):
    targets = ("--target-modules", ",".join(TARGETS[name])) if name in TARGETS else ()
    batches = BATCHES if name in THOROUGH else [BATCHES[0], BATCHES[-1]] if strategy == "full" else BATCHES[-1:]
    for batch, sequence in batches:
        compare_activations(nibble, model(name, strategy), name, strategy, batch, sequence, *targets)
    if strategy == "lora-bf16" and CASES[name].run:
        # What bitsandbytes' layers save are their weights.
        assert row(nibble, name, "qlora")["activations"] == row(nibble, name, strategy)["activations"]


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


@pytest.mark.parametrize("name", ["llama", "mixtral", "gpt2"])
def test_quantized_checkpoint_says_the_same(nibble, tmp_path, name):
    nibble.quantize(folder(name), tmp_path / "nf4")
    assert nibble.json("fit", tmp_path / "nf4") == nibble.json("fit", folder(name))
