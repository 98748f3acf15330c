"""Adapters between PEFT and GGUF, and merges into GGUF bases.

llama.cpp adds α/r · B·A to a weight, with one α for the whole file and each module's own rank. What an adapter's file
says by that rule has to be what PEFT's merge does to the weights, which test_merge.py holds to PEFT itself.
"""

import json
import pathlib
import shutil

import gguf
import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import adapters
import gguf_families
import gguf_oracle
from tool import REJECTED, ROOT, UNSUPPORTED, USAGE

pytestmark = pytest.mark.kernels

FIXTURE, DIALECT = ROOT / "fixtures/sql-llama", ROOT / "fixtures/sql-llama-dialect"
LINEAR = {"r": 4, "lora_alpha": 6, "target_modules": "all-linear"}
MIXED = LINEAR | {
    "use_rslora": True, "rank_pattern": {"q_proj": 2, r".*\.1\..*down_proj": 8}, "alpha_pattern": {"v_proj": 20.5},
}
EMBEDDINGS = {"r": 4, "lora_alpha": 6, "target_modules": ["embed_tokens", "lm_head", "k_proj"]}
EXPERTS = {"r": 2, "lora_alpha": 6, "target_modules": ["q_proj"],
           "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}

# Name, base, what its LoraConfig says.
ROWS = [
    ("plain", "llama", LINEAR),
    ("ranks-and-alphas", "llama", MIXED),
    ("alpha-zero", "llama", LINEAR | {"lora_alpha": 0}),
    ("embeddings", "llama", EMBEDDINGS),
    ("biases", "llama-biases-linear", MIXED),
    ("tied", "qwen2", LINEAR),
    ("qwen3", "qwen3", MIXED),
    ("experts", "mixtral", EXPERTS),
    ("many-experts", "qwen3-moe", EXPERTS),
    ("gemma", "gemma2", LINEAR),
    ("fused", "phi3", LINEAR),
    ("conv1d", "gpt2", {"r": 4, "lora_alpha": 6, "target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
]


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Tiny bases in float32, each made when it is first asked for."""
    folder = tmp_path_factory.mktemp("bases")
    made = {}

    def base(name: str) -> pathlib.Path:
        if name not in made:
            path = next(row for row in gguf_families.FAMILIES if row.name == name).save(folder)
            model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
            model.save_pretrained(path)
            made[name] = path
        return made[name]

    with adapters.one_thread():
        yield base


def make(base: pathlib.Path, options: dict, out: pathlib.Path) -> pathlib.Path:
    """An adapter of noise."""
    torch.manual_seed(adapters.seed(out.name))
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with adapters.quiet():
        model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **options))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.normal_(0, 0.1)
        model.save_pretrained(out, save_embedding_layers=False)
    return out


def values(path: pathlib.Path) -> dict[str, np.ndarray]:
    return {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(path).tensors}


def alpha(path: pathlib.Path) -> float:
    return gguf.GGUFReader(path).fields["adapter.lora.alpha"].contents()


def updates(path: pathlib.Path) -> dict[str, np.ndarray]:
    """What llama.cpp adds to each tensor."""
    tensors = values(path)
    result = {}
    for name in tensors:
        if not name.endswith(".lora_a"):
            continue
        stem = name.removesuffix(".lora_a")
        a, b = tensors[name].astype(np.float64), tensors[stem + ".lora_b"].astype(np.float64)
        scale = alpha(path) / b.shape[-1] if alpha(path) else 1
        # Rows of an embedding are looked up in A, which lies [tokens, rank].
        result[stem] = scale * (a @ b.T if stem == "token_embd.weight" else b @ a)
    return result


@pytest.mark.parametrize("name, base, options", ROWS, ids=[row[0] for row in ROWS])
def test_adapter(nibble, bases, tmp_path, name, base, options):
    base = bases(base)
    adapter = make(base, options, tmp_path / name)
    nibble.run("convert", adapter, "-o", tmp_path / "lora.gguf", "--base", base)
    nibble.verify(tmp_path / "lora.gguf")
    nibble.run("convert", base, "-o", tmp_path / "base.gguf")
    nibble.run("merge", base, adapter, "-o", tmp_path / "merged")
    nibble.run("convert", tmp_path / "merged", "-o", tmp_path / "merged.gguf")
    before, after, added = values(tmp_path / "base.gguf"), values(tmp_path / "merged.gguf"), updates(tmp_path / "lora.gguf")
    assert added and after.keys() == before.keys()
    for tensor, value in before.items():
        if tensor in added:
            assert added[tensor].shape == value.shape
            change = after[tensor].astype(np.float64) - value
            assert np.abs(change - added[tensor]).max() <= 2e-6 * max(1, np.abs(after[tensor]).max()), tensor
            assert options["lora_alpha"] == 0 or np.abs(change).max() > 1e-3, tensor
        else:
            assert (after[tensor] == value).all(), tensor

    # Merged in GGUF: from either adapter into either base, the same model.
    for number, (one, other) in enumerate([
        (tmp_path / "base.gguf", adapter), (base, adapter), (tmp_path / "base.gguf", tmp_path / "lora.gguf"),
        (base, tmp_path / "lora.gguf"),
    ]):
        nibble.run("merge", one, other, "-o", tmp_path / f"{number}.gguf")
        found = values(tmp_path / f"{number}.gguf")
        assert list(found) == list(values(one) if one.is_file() else before)
        for tensor, value in after.items():
            # The same arithmetic, but for a B that was scaled.
            exact = other == adapter or name not in ("ranks-and-alphas", "biases", "qwen3", "alpha-zero")
            assert (found[tensor] == value).all() if exact else np.abs(found[tensor] - value).max() < 1e-6, tensor
    if "target_parameters" in options:
        return  # Here they are experts one by one, which PEFT has no modules for.

    # And back: PEFT loads it, and it does the same.
    nibble.run("convert", tmp_path / "lora.gguf", "-o", tmp_path / "back", "--base", tmp_path / "base.gguf")
    nibble.verify(tmp_path / "back")
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with adapters.quiet():
        loaded = peft.PeftModel.from_pretrained(model, tmp_path / "back")
        keys = set(peft.get_peft_model_state_dict(loaded, save_embedding_layers=False))
        merged = loaded.merge_and_unload()
    assert keys == set(peft.utils.load_peft_weights(tmp_path / "back", device="cpu"))
    expected = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).state_dict()
    for key, value in merged.state_dict().items():
        assert (value - expected[key]).abs().max() < 1e-5, key


@pytest.mark.parametrize("name", ["plain", "embeddings", "fused", "tied"])
def test_as_llama_cpp_converts(nibble, bases, tmp_path, name):
    """Where α/r is all there is, the files are the same, but for the order of tensors. Conv1D is left out: that converter
    turns its factors round, which llama.cpp refuses to load."""
    _, base, options = next(row for row in ROWS if row[0] == name)
    base = bases(base)
    adapter = make(base, options, tmp_path / "some-adapter")
    nibble.run("convert", adapter, "-o", tmp_path / "own.gguf", "--base", base)
    own = gguf_oracle.read(tmp_path / "own.gguf")
    theirs = gguf_oracle.read(gguf_oracle.convert_adapter(adapter, base, tmp_path / "theirs.gguf"))
    assert list(own["metadata"].items()) == list(theirs["metadata"].items())
    assert own["tensors"] == theirs["tensors"]


@pytest.mark.parametrize("scheme", ["q4_k_m", "q8_0", "iq4_xs"])
def test_quantized_base(nibble, tmp_path, scheme):
    """Types stay, and the bytes of whatever the adapter does not touch; a split base is as good as a whole one."""
    base, out = tmp_path / "base.gguf", tmp_path / "out.gguf"
    nibble.quantize(FIXTURE, base, "--scheme", scheme)
    report = nibble.json("merge", base, DIALECT, "-o", out)
    before, after = gguf_oracle.read(base), gguf_oracle.read(out)
    assert after["metadata"] == before["metadata"]
    shapes = {name: tensor[:2] for name, tensor in before["tensors"].items()}
    assert {name: tensor[:2] for name, tensor in after["tensors"].items()} == shapes
    changed = {name for name, tensor in before["tensors"].items() if after["tensors"][name] != tensor}
    assert changed == set(updates_of_dialect(nibble, tmp_path)) and len(report["changes"]) == len(changed)

    # No worse than quantizing what the merge of the decoded base gives.
    nibble.run("convert", base, "-o", tmp_path / "decoded", "--dtype", "float32")
    nibble.run("merge", tmp_path / "decoded", DIALECT, "-o", tmp_path / "whole.gguf")
    wanted, found = values(tmp_path / "whole.gguf"), gguf.GGUFReader(out)
    for tensor in found.tensors:
        if tensor.name in changed:
            decoded = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(wanted[tensor.name].shape)
            error = np.sqrt(np.square(decoded - wanted[tensor.name]).mean() / np.square(wanted[tensor.name]).mean())
            assert error < {"q8_0": 0.01}.get(scheme, 0.1), tensor.name

    nibble.run("convert", base, "-o", tmp_path / "split.gguf", "--max-shard-size", "300KB")
    parts = sorted(tmp_path.glob("split-*.gguf"))
    assert len(parts) > 2
    nibble.run("merge", parts[0], DIALECT, "-o", tmp_path / "again.gguf")
    assert gguf_oracle.read(tmp_path / "again.gguf")["tensors"] == after["tensors"]
    nibble.run("merge", base, DIALECT, "-o", tmp_path / "other.gguf", "--scheme", "q5_0")
    kinds = [tensor[0] for tensor in gguf_oracle.read(tmp_path / "other.gguf")["tensors"].values()]
    assert kinds.count("Q5_0") > 20


def updates_of_dialect(nibble, folder: pathlib.Path) -> dict[str, np.ndarray]:
    nibble.run("convert", DIALECT, "-o", folder / "dialect.gguf", "--base", FIXTURE)
    return updates(folder / "dialect.gguf")


def test_as_trained(nibble, quantized, tmp_path):
    """An NF4 base: the merged 16-bit model, and the same in GGUF."""
    nibble.run("merge", quantized, DIALECT, "-o", tmp_path / "merged")
    nibble.run("convert", tmp_path / "merged", "-o", tmp_path / "one.gguf")
    nibble.run("merge", quantized, DIALECT, "-o", tmp_path / "other.gguf")
    one, other = (gguf_oracle.read(tmp_path / f"{name}.gguf")["tensors"] for name in ("one", "other"))
    assert one == other
    nibble.run("quantize", tmp_path / "merged", "-o", tmp_path / "one-q.gguf", "--scheme", "q4_k_m")
    nibble.run("merge", quantized, DIALECT, "-o", tmp_path / "other-q.gguf", "--scheme", "q4_k_m")
    one, other = (gguf_oracle.read(tmp_path / f"{name}-q.gguf")["tensors"] for name in ("one", "other"))
    assert one == other


# What GGUF has no way to say: the options, the base, and a word of the answer.
REFUSED = [
    ({"use_dora": True}, "llama", "DoRA"),
    ({"modules_to_save": ["lm_head"]}, "llama", "whole tensors"),
    ({"lora_bias": True}, "llama-biases-linear", "lora_bias"),
    ({"trainable_token_indices": [1, 5]}, "llama", "trainable_token_indices"),
    ({"layer_replication": [[0, 2], [1, 2]]}, "llama", "layer_replication"),
    ({"target_modules": ["embed_tokens"]}, "qwen2", "tied"),
]


@pytest.mark.parametrize("options, base, word", REFUSED, ids=[row[2].replace(" ", "-") for row in REFUSED])
def test_refused(nibble, bases, tmp_path, options, base, word):
    base = bases(base)
    options = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]} | options
    adapter = make(base, options, tmp_path / "adapter")
    answer = nibble.run("convert", adapter, "-o", tmp_path / "lora.gguf", "--base", base, expect=UNSUPPORTED)
    assert word in answer.stderr and "merge" in answer.stderr, answer.stderr
    assert not (tmp_path / "lora.gguf").exists()
    # Into the model itself it goes.
    nibble.run("convert", base, "-o", tmp_path / "base.gguf")
    nibble.run("merge", tmp_path / "base.gguf", adapter, "-o", tmp_path / "merged.gguf")
    nibble.run("merge", base, adapter, "-o", tmp_path / "merged")
    nibble.run("convert", tmp_path / "merged", "-o", tmp_path / "expected.gguf")
    found, expected = (gguf_oracle.read(tmp_path / f"{name}.gguf") for name in ("merged", "expected"))
    assert found["tensors"] == expected["tensors"]
    architecture = expected["metadata"]["general.architecture"][1]
    for key, value in expected["metadata"].items():
        if key.startswith(architecture + "."):
            assert found["metadata"][key] == value, key


# What PEFT saves beside the factors: by itself, or because it was told to keep more than training changed.
COPIES = {
    "embeddings": (EMBEDDINGS, ["model.embed_tokens.base_layer", "lm_head.base_layer"]),
    "norms": (
        LINEAR | {"modules_to_save": ["norm", "input_layernorm"]}, ["model.norm", "model.layers.1.input_layernorm"],
    ),
    "head": (LINEAR | {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, ["lm_head"]),
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_of_the_base_are_left_out(nibble, bases, tmp_path, name):
    """They change nothing; one that would is refused by its own name."""
    base, (options, modules) = bases("llama"), COPIES[name]
    bare = make(base, {key: value for key, value in options.items() if key != "modules_to_save"}, tmp_path / "bare/x")
    adapter = tmp_path / "copies/x"
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with adapters.quiet():
        model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **options))
        model.save_pretrained(adapter)
    tensors = load_file(adapter / adapters.WEIGHTS)
    copies = {key for key in tensors if "lora_" not in key}
    assert {f"{adapters.PREFIX}{module}.weight" for module in modules} <= copies
    factors = load_file(bare / adapters.WEIGHTS)
    assert factors.keys() == tensors.keys() - copies
    tensors |= factors
    save_file(tensors, adapter / adapters.WEIGHTS, metadata={"format": "pt"})
    for source in (bare, adapter):
        nibble.run("convert", source, "-o", source.parent / "lora.gguf", "--base", base)
    assert (tmp_path / "bare/lora.gguf").read_bytes() == (tmp_path / "copies/lora.gguf").read_bytes()

    # One element of the last row is enough, be it in another dtype.
    key = f"{adapters.PREFIX}{modules[-1]}.weight"
    for change in (lambda value: value.index_fill(0, torch.tensor([len(value) - 1]), 3),
                   lambda value: value.index_fill(0, torch.tensor([len(value) - 1]), 3).bfloat16()):
        save_file(tensors | {key: change(tensors[key])}, adapter / adapters.WEIGHTS, metadata={"format": "pt"})
        answer = nibble.run("convert", adapter, "-o", tmp_path / "other.gguf", "--base", base, expect=UNSUPPORTED)
        assert f"{adapter}/adapter_model.safetensors: tensor '{key}': " in answer.stderr, answer.stderr
        assert "differs from the base's" in answer.stderr and not (tmp_path / "other.gguf").exists()


def test_dora_is_refused_by_the_adapters_name(nibble, bases, tmp_path):
    base = bases("llama")
    adapter = make(base, LINEAR | {"use_dora": True}, tmp_path / "adapter")
    answer = nibble.run("convert", adapter, "-o", tmp_path / "lora.gguf", "--base", base, expect=UNSUPPORTED)
    assert answer.stderr == (
        f"nibble: error: {adapter}: is a DoRA adapter (use_dora), which an adapter in GGUF cannot hold; merge it into "
        "its base instead ('nibble merge')\n"
    )


def test_wrong_input(nibble, bases, tmp_path):
    lora, base = tmp_path / "lora.gguf", bases("llama")
    nibble.run("convert", DIALECT, "-o", lora, "--base", FIXTURE)
    nibble.run("convert", FIXTURE, "-o", tmp_path / "model.gguf")
    nibble.run("merge", bases("llama"), lora, "-o", tmp_path / "out", expect=REJECTED)
    nibble.run("merge", bases("qwen2"), lora, "-o", tmp_path / "out.gguf", expect=REJECTED)
    nibble.run("merge", FIXTURE, tmp_path / "model.gguf", "-o", tmp_path / "out", expect=REJECTED)
    nibble.run("merge", lora, DIALECT, "-o", tmp_path / "out.gguf", expect=UNSUPPORTED)
    nibble.run("convert", lora, "-o", tmp_path / "out.gguf", "--base", FIXTURE, expect=USAGE)
    nibble.run("convert", DIALECT, "-o", tmp_path / "out", "--base", FIXTURE, expect=USAGE)
    for source, out in ((DIALECT, "out.gguf"), (lora, "out"), (lora, "out.gguf")):
        assert "--base" in nibble.run("convert", source, "-o", tmp_path / out, expect=USAGE).stderr
    nibble.run("merge", FIXTURE, DIALECT, lora, "-o", tmp_path / "both.gguf")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.gguf").exists()
    shutil.copytree(base, tmp_path / "bare", ignore=shutil.ignore_patterns("config.json"))
    nibble.run("convert", DIALECT, "-o", tmp_path / "x.gguf", "--base", tmp_path / "bare", expect=66)
    assert json.loads((DIALECT / "adapter_config.json").read_text())["r"] == 64


def write_adapter(path: pathlib.Path, tensors: dict[str, np.ndarray], **keys) -> pathlib.Path:
    writer = gguf.GGUFWriter(path, "llama")
    values = {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 8.0} | keys
    for key, value in values.items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif value is not None:
            writer.add_uint32(key, value)
    for name, value in tensors.items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def factors(stem: str, a: tuple, b: tuple, dtype=np.float32) -> dict[str, np.ndarray]:
    return {f"{stem}.lora_a": np.ones(a, dtype), f"{stem}.lora_b": np.ones(b, dtype)}


Q, EMBEDDING = "blk.0.attn_q.weight", "token_embd.weight"
GOOD = factors(Q, (4, 256), (256, 4))
# What is in the file, what its metadata say, the exit code, and a word of the answer.
HOSTILE = {
    "no tensors": ({}, {}, REJECTED, "no tensor"),
    "rank 0": (factors(Q, (0, 256), (256, 0)), {}, REJECTED, ""),
    "no B": ({f"{Q}.lora_a": np.ones((4, 256), np.float32)}, {}, REJECTED, "lora_B"),
    "ranks that differ": (factors(Q, (4, 256), (256, 8)), {}, REJECTED, "rank"),
    "too few rows": (factors(Q, (4, 256), (128, 4)), {}, REJECTED, "256 rows"),
    "too many columns": (factors(Q, (4, 512), (256, 4)), {}, REJECTED, "512"),
    "vectors": (factors(Q, (256,), (256,)), {}, REJECTED, "a matrix"),
    "a stack": (factors(Q, (2, 4, 256), (2, 256, 4)), {}, REJECTED, "a matrix"),
    "an embedding the other way round": (factors(EMBEDDING, (4, 1024), (256, 4)), {}, REJECTED, ""),
    "a norm": ({"blk.0.attn_norm.weight": np.ones(256, np.float32)}, {}, UNSUPPORTED, "neither"),
    "factors of a norm": (factors("blk.0.attn_norm.weight", (4, 256), (256, 4)), {}, REJECTED, ""),
    "a layer that is not there": (factors("blk.99.attn_q.weight", (4, 256), (256, 4)), {}, REJECTED, "does not have"),
    "whole numbers": (factors(Q, (4, 256), (256, 4), np.int32), {}, REJECTED, "I32"),
    "NaN": (GOOD | {f"{Q}.lora_a": np.full((4, 256), np.nan, np.float32)}, {}, REJECTED, "finite"),
    "no alpha": (GOOD, {"adapter.lora.alpha": None}, REJECTED, "alpha"),
    "alpha is text": (GOOD, {"adapter.lora.alpha": "8"}, REJECTED, "alpha"),
    "alpha is NaN": (GOOD, {"adapter.lora.alpha": float("nan")}, REJECTED, "alpha"),
    "alpha below zero": (GOOD, {"adapter.lora.alpha": -8.0}, REJECTED, "alpha"),
    "a control vector": (GOOD, {"adapter.type": "cvector"}, UNSUPPORTED, "cvector"),
    "no kind": (GOOD, {"adapter.type": None}, UNSUPPORTED, ""),
    "a projector": (GOOD, {"general.type": "mmproj"}, REJECTED, "mmproj"),
}


@pytest.mark.parametrize("row", HOSTILE)
def test_hostile(nibble, tmp_path, row):
    """Refused, with one message, by a merge and by a conversion; nothing is left behind."""
    tensors, keys, code, word = HOSTILE[row]
    adapter = write_adapter(tmp_path / "lora.gguf", tensors, **keys)
    for command in (["merge", FIXTURE, adapter, "-o", tmp_path / "out.gguf"],
                    ["merge", FIXTURE, adapter, "-o", tmp_path / "out"],
                    ["convert", adapter, "-o", tmp_path / "out", "--base", FIXTURE]):
        # A conversion does not look at values.
        if command[0] == "convert" and row == "NaN":
            continue
        answer = nibble.run(*command, expect=code)
        assert answer.stderr.count("error:") == 1 and word in answer.stderr, answer.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["lora.gguf"]


def test_twin(nibble, tmp_path):
    adapter = write_adapter(tmp_path / "lora.gguf", GOOD)
    nibble.run("merge", FIXTURE, adapter, "-o", tmp_path / "out.gguf")
    nibble.run("convert", adapter, "-o", tmp_path / "out", "--base", FIXTURE)
    nibble.verify(tmp_path / "out.gguf")
