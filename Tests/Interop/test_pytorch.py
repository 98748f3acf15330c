"""Files of torch.save as a source: the bytes of torch.load, for every verb, and nothing in them is ever called."""

import json
import os
import pathlib
import pickle
import shutil
import subprocess

import peft
import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file

import checkpoint
import torch_files
from checkpoint import same
from tool import DIFFERENT, REJECTED, UNSUPPORTED

MODELS = {
    "untied": transformers.LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=128, tie_word_embeddings=False),
    "tied": transformers.LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, vocab_size=128,
        tie_word_embeddings=True),
    "t5": transformers.T5Config(d_model=64, d_ff=96, num_layers=2, num_heads=4, d_kv=16, vocab_size=128),
}


def model(name: str, dtype=torch.bfloat16):
    torch.manual_seed(len(name))
    config = MODELS[name]
    automatic = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    return automatic.from_config(config).to(dtype)


def save(model, folder: pathlib.Path, shards: int = 1) -> pathlib.Path:
    """As transformers saved models before safetensors: every name of the state_dict, tied ones too."""
    folder.mkdir()
    model.config.save_pretrained(folder)
    names = list(model.state_dict())
    if shards == 1:
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        return folder
    files = {}
    for number in range(shards):
        file = f"pytorch_model-{number + 1:05}-of-{shards:05}.bin"
        part = {name: model.state_dict()[name].clone() for name in names[number::shards]}
        torch.save(part, folder / file)
        files |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": sum(t.nbytes for t in model.state_dict().values())}, "weight_map": files}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Each model as safetensors and as files of PyTorch; not to be changed."""
    folder = tmp_path_factory.mktemp("pytorch")
    for name in MODELS:
        made = model(name)
        made.save_pretrained(folder / f"{name}-safetensors")
        save(made, folder / name)
    return folder


# --- values ----------------------------------------------------------------------------------------------------------

def test_every_file_of_torch(nibble, tmp_path):
    """Types × layouts × options of saving × roots, byte for byte what torch.load gives."""
    (tmp_path / "in").mkdir()
    count = 0
    for path, expected in torch_files.write(tmp_path / "in"):
        root = load(path)
        count += root is not None
        loaded = expected if root is None else torch_files.plain(root)
        assert loaded.keys() == expected.keys()
        if not expected:
            continue
        out = tmp_path / "out"
        nibble.run("convert", path, "-o", out, "--quiet")
        header, data = raw(out / "model.safetensors")
        assert header.keys() == loaded.keys(), path.name
        for name, tensor in loaded.items():
            begin, end = header[name]["data_offsets"]
            assert header[name]["shape"] == list(tensor.shape), (path.name, name)
            assert data[begin:end] == torch_files.stored(tensor), (path.name, name)
        shutil.rmtree(out)
        path.unlink()
    assert count >= 60


def load(path: pathlib.Path) -> dict | None:
    """What torch finds in a file without running it; None where it cannot: pickles of protocol 5 are beyond it, and so
    are untyped storages in legacy files, which it writes itself."""
    try:
        return torch.load(path, weights_only=True)
    except (pickle.UnpicklingError, AttributeError):
        return None


def raw(path: pathlib.Path) -> tuple[dict, bytes]:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8:8 + length])
    header.pop("__metadata__", None)
    return header, content[8 + length:]


@pytest.mark.parametrize("name", MODELS)
def test_directories(nibble, plain, name, tmp_path):
    """The same tensors as transformers itself saves: those that it ties once."""
    out, expected = tmp_path / "out", checkpoint.tensors(plain / f"{name}-safetensors")
    nibble.run("convert", plain / name, "-o", out, "--quiet")
    found = checkpoint.tensors(out)
    assert found.keys() == expected.keys()
    assert all(same(found[key], tensor) for key, tensor in expected.items())
    assert checkpoint.config(out) == checkpoint.config(plain / name)
    report = nibble.json("diff", plain / name, plain / f"{name}-safetensors")
    assert report["equal"], report
    loaded = transformers.AutoModel.from_pretrained(out)
    assert loaded.config.model_type == MODELS[name].model_type


def test_shards(nibble, plain, tmp_path):
    source = save(model("untied"), tmp_path / "shards", shards=3)
    assert nibble.json("diff", source, plain / "untied-safetensors")["equal"]
    (source / "pytorch_model-00002-of-00003.bin").unlink()
    lost = nibble.run("inspect", source, expect=66).stderr
    assert "pytorch_model-00002-of-00003.bin" in lost and "the file is missing" in lost


def test_a_shared_matrix_that_nothing_ties(nibble, plain, tmp_path):
    """Two names of one storage, in a model whose loader wants both: both are written."""
    made = model("untied")
    made.lm_head.weight = made.model.embed_tokens.weight
    source = save(made, tmp_path / "source")
    nibble.run("convert", source, "-o", tmp_path / "out", "--quiet")
    found = checkpoint.tensors(tmp_path / "out")
    assert same(found["lm_head.weight"], found["model.embed_tokens.weight"])


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "OfNoRelease"])
def test_what_layers_share(nibble, tmp_path, architecture):
    """Names of one storage are parameters of their own in layers, those too that a class may lack."""
    torch.manual_seed(4)
    config = transformers.LlamaConfig(**MODELS["tied"].to_dict() | {"attention_bias": True, "mlp_bias": True})
    weights = transformers.LlamaForCausalLM(config).state_dict()
    one, other = torch.randn(64), torch.randn(64, 64)
    for name, tensor in weights.items():
        if tensor.shape == one.shape:
            weights[name] = one
        elif tensor.shape == other.shape:
            weights[name] = other
    source = tmp_path / "source"
    source.mkdir()
    torch.save(weights, source / "pytorch_model.bin")
    (source / "config.json").write_text(json.dumps(config.to_dict() | {"architectures": [architecture]}))
    nibble.run("convert", source, "-o", tmp_path / "out", "--quiet")
    found = checkpoint.tensors(tmp_path / "out")
    assert weights.keys() - found.keys() == {"lm_head.weight"} and found.keys() <= weights.keys()
    assert all(same(tensor, weights[name]) for name, tensor in found.items())


def test_a_model_beside_its_adapter(nibble, plain, tmp_path):
    """Weights of a whole model are read, in whatever files, and not the adapter that lies beside them."""
    for name in ("untied", "untied-safetensors"):
        source = shutil.copytree(plain / name, tmp_path / name)
        adapter = {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(2, 64)}
        torch.save(adapter, source / "adapter_model.bin")
        (source / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2}))
        assert nibble.json("diff", source, plain / "untied")["equal"]


def test_what_trainers_leave_beside(nibble, plain, tmp_path):
    """A file of another name is the model when all others are a trainer's."""
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(plain / "untied/config.json", source)
    shutil.copy(plain / "untied/pytorch_model.bin", source / "weights.pt")
    for name in ("training_args.bin", "optimizer.pt", "scheduler.bin", "scaler.pt", "rng_state_0.pth", "sampler.bin",
                 "dl_state_dict.bin", "custom_checkpoint_0.pt"):
        torch.save({"a": torch.ones(2, 2)}, source / name)
    assert nibble.json("diff", source, plain / "untied")["equal"]


# --- verbs -----------------------------------------------------------------------------------------------------------

def test_verbs(nibble, plain, tmp_path):
    """What becomes of files of PyTorch is what becomes of the same safetensors."""
    source, twin = plain / "untied", plain / "untied-safetensors"
    for out, path in (("a", source), ("b", twin)):
        nibble.quantize(path, tmp_path / out)
    assert nibble.json("diff", tmp_path / "a", tmp_path / "b")["equal"]
    nibble.verify(tmp_path / "a", "--against", source)
    for out, path in (("mlx-a", source), ("mlx-b", twin)):
        nibble.quantize(path, tmp_path / out, "--scheme", "mlx-q4")
    ours, theirs = load_file(tmp_path / "mlx-a/model.safetensors"), load_file(tmp_path / "mlx-b/model.safetensors")
    assert ours.keys() == theirs.keys() and all(same(ours[key], tensor) for key, tensor in theirs.items())
    nibble.run("convert", source, "-o", tmp_path / "f32", "--dtype", "float32", "--quiet")
    for key, tensor in checkpoint.tensors(tmp_path / "f32").items():
        assert same(tensor, load_file(twin / "model.safetensors")[key].float())
    assert nibble.json("fit", source)["parameters"] == nibble.json("fit", twin)["parameters"]
    listed, expected = (nibble.json("inspect", path)["summary"] for path in (source, twin))
    assert listed == expected


@pytest.mark.parametrize("legacy", [False, True])
def test_adapter(nibble, plain, tmp_path, legacy):
    """`adapter_model.bin` is merged as `adapter_model.safetensors` is."""
    wrapped = peft.get_peft_model(model("untied"), peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    wrapped.save_pretrained(tmp_path / "adapter")
    pickled = shutil.copytree(tmp_path / "adapter", tmp_path / "pickled")
    factors = load_file(pickled / "adapter_model.safetensors")
    torch.save(factors, pickled / "adapter_model.bin", _use_new_zipfile_serialization=not legacy)
    (pickled / "adapter_model.safetensors").unlink()
    for adapter, base, out in (("adapter", "untied-safetensors", "a"), ("pickled", "untied", "b")):
        nibble.run("merge", plain / base, tmp_path / adapter, "-o", tmp_path / out, "--quiet")
    expected = checkpoint.tensors(tmp_path / "a")
    found = checkpoint.tensors(tmp_path / "b")
    assert found.keys() == expected.keys() and all(same(found[key], tensor) for key, tensor in expected.items())
    nibble.run("convert", pickled, "-o", tmp_path / "safe", "--quiet")
    with safe_open(tmp_path / "safe/adapter_model.safetensors", framework="pt") as file:
        assert {key: file.get_tensor(key).shape for key in file.keys()} == {k: t.shape for k, t in factors.items()}
    assert nibble.json("inspect", pickled)["adapter"]["rank"] == 4


# --- damage ----------------------------------------------------------------------------------------------------------

def test_verify_finds_a_changed_byte(nibble, plain, tmp_path):
    source = shutil.copytree(plain / "untied", tmp_path / "source")
    report = nibble.json("verify", source)
    assert report["ok"] and report["tensorsChecked"] == len(model("untied").state_dict())
    path = source / "pytorch_model.bin"
    content = bytearray(path.read_bytes())
    weights = model("untied").state_dict()["model.layers.1.mlp.down_proj.weight"].view(torch.uint8).numpy().tobytes()
    content[content.index(weights) + 7] ^= 4
    path.write_bytes(content)
    report = nibble.json("verify", source, expect=DIFFERENT)
    assert [(problem["file"], "is damaged" in problem["problem"]) for problem in report["problems"]] == [
        ("pytorch_model.bin", True)]
    torch.save(model("untied").state_dict(), path, _use_new_zipfile_serialization=False)
    report = nibble.json("verify", source)
    assert report["ok"] and any("no checksums" in text for text in report["notChecked"])


def test_refusals(nibble, tmp_path):
    path = tmp_path / "model.bin"

    def refused(content, text, code=UNSUPPORTED):
        torch.save(content, path)
        assert text in nibble.run("convert", path, "-o", tmp_path / "out", expect=code).stderr
        assert not (tmp_path / "out").exists()

    ones = torch.ones(4, 4)
    refused({"a": ones.to_sparse()}, "is sparse: save it as tensor.to_dense()")
    refused({"a": torch.quantize_per_tensor(ones, 0.1, 0, torch.qint8)}, "tensor.dequantize()")
    refused({"a": torch.empty(3, device="meta")}, "device 'meta'")
    refused({"a": torch.ones(2, dtype=torch.complex128)}, "torch.complex128")
    refused([ones], "holds a list")
    refused(ones, "one tensor without a name")
    refused({"model": {"a": ones}, "state_dict": {"b": ones}}, "which are the model is not clear", REJECTED)
    lost = "with tensors in it, beside tensors"
    refused({"a": ones, "encoder": {"w": ones}}, f"the entry 'encoder' is a dictionary {lost}")
    refused({"model": {"a": ones, "parts": [ones]}}, f"the entry 'parts' is a list {lost}")
    refused({"a": ones, "linear": torch.nn.Linear(2, 2)}, f"the entry 'linear' is a object {lost}")
    # What linear layers quantized by PyTorch itself save: the scale is a tensor, the weight is not.
    packed = (torch.quantize_per_tensor(ones, 0.1, 0, torch.qint8), torch.ones(4))
    refused({"0.scale": torch.tensor(1.), "0._packed_params._packed_params": packed},
            f"the entry '0._packed_params._packed_params' is a tuple {lost}")
    torch.jit.script(torch.nn.Linear(2, 2)).save(path)
    assert "TorchScript" in nibble.run("inspect", path, expect=UNSUPPORTED).stderr


def test_entries_that_are_no_tensors(nibble, tmp_path):
    """Numbers, texts and what a trainer keeps are ignored, and said to be."""
    ones = torch.ones(4, 4)
    content = {
        "a": ones, "step": 3, "options": {"lr": [0.1]}, "optimizer": {"state": {0: ones}}, "b._extra_state": [ones]}
    torch.save(content, tmp_path / "model.bin")
    result = nibble.run("convert", tmp_path / "model.bin", "-o", tmp_path / "out", "--verbose")
    assert checkpoint.tensors(tmp_path / "out").keys() == {"a"}
    assert all(name in result.stderr for name in content.keys() - {"a"})


class Malicious:
    """Runs a command when it is unpickled as pickles are."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_is_called(nibble, tmp_path, legacy):
    """A file with a trap is read for its tensors: no process, no socket, no file but those named."""
    mark, path, out, log = (tmp_path / name for name in ("mark", "trap.bin", "out", "log"))
    torch.save({"a": torch.ones(2, 3), "trap": Malicious(mark)}, path, _use_new_zipfile_serialization=not legacy)
    calls = "trace=execve,execveat,fork,vfork,clone,clone3,socket,connect,openat,open,creat,unlink,unlinkat,rename,renameat2"
    subprocess.run(
        ["strace", "-f", "-o", log, "-e", calls, nibble.path, "convert", path, "-o", out, "--quiet"], check=True)
    assert not mark.exists()
    lines = [line.split(maxsplit=1)[1] for line in log.read_text().splitlines() if " <... " not in line]
    assert sum(line.startswith("execve") for line in lines) == 1
    assert not any(line.startswith(("socket", "connect", "fork", "vfork")) for line in lines)
    # Threads of its own share its memory; a process would not.
    assert all("CLONE_VM" in line for line in lines if line.startswith("clone"))
    written = [line for line in lines if line.startswith("open") and ("O_WRONLY" in line or "O_RDWR" in line)]
    assert written and all(line.startswith("openat(") and "AT_FDCWD" not in line for line in written), written
    assert load_file(out / "model.safetensors")["a"].equal(torch.ones(2, 3))
