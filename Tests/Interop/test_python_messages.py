"""What the Python package says to who holds it otherwise: each message names what to do."""

import inspect
import json
import pathlib
import pickle
import shutil
import typing
import zipfile

import pytest
import torch
from peft import LoraConfig

import nibble
from tool import ROOT

FIXTURE = ROOT / "fixtures" / "sql-llama"
NAME = "model.layers.1.mlp.up_proj.weight"


def test_a_name_that_is_not_there(quantized):
    with nibble.open(quantized) as checkpoint:
        for wrong in ("model.layers.1.mlp.up_prj.weight", "layers.1.mlp.up_proj.weight", "model.layers.1.mlp.up_proj"):
            with pytest.raises(KeyError) as caught:
                checkpoint[wrong]
            assert isinstance(caught.value, nibble.NoSuchTensorError) and caught.value.nearest == NAME
            assert str(caught.value) == f"{quantized}: no tensor '{wrong}'; the nearest is '{NAME}'"
            assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
            assert wrong not in checkpoint and checkpoint.get(wrong) is None
        with pytest.raises(KeyError, match=r"no tensor 'x\\x1b\[0m'$"):
            checkpoint["x\x1b[0m"]
        assert NAME in checkpoint and checkpoint.get(NAME) is checkpoint[NAME]


def test_a_closed_checkpoint(quantized):
    with nibble.open(quantized) as checkpoint:
        lazy = checkpoint[NAME]
    for use in (lambda: checkpoint[NAME], lambda: list(checkpoint), lambda: len(checkpoint), lambda: NAME in checkpoint,
                lambda: checkpoint.get(NAME), lazy.torch, lazy.dequantize):
        with pytest.raises(nibble.CheckpointError, match="the checkpoint is closed"):
            use()


def test_what_it_shows(quantized):
    checkpoint = nibble.open(quantized)
    size = sum(tensor.size for tensor in checkpoint.values())
    files = len(list(quantized.glob("*.safetensors")))
    expected = f"<Checkpoint '{quantized}': {len(checkpoint)} tensors, {size} bytes in {files} files, checked>"
    assert repr(checkpoint) == expected
    assert repr(checkpoint["model.norm.weight"]) == "LazyTensor('model.norm.weight', BF16, [256])"
    checkpoint.close()
    assert repr(checkpoint) == f"<Checkpoint '{quantized}', closed>"
    with nibble.open(next(quantized.glob("*.safetensors")), verify=False) as one:
        assert "bytes in 1 file, not checked>" in repr(one)


def zipped(path: pathlib.Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02")


FILES = {
    "gguf": (lambda path: path.write_bytes(b"GGUF" + bytes(100)), "a GGUF file, not safetensors; `nibble convert FILE"),
    "pytorch": (zipped, "a file of PyTorch's"),
    "pointer": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid 0\n"), "git lfs pull"),
    "html": (lambda path: path.write_text("<!DOCTYPE html><html></html>"), "a page of HTML"),
    "empty": (lambda path: path.write_bytes(b""), "0 bytes, too short for a safetensors file"),
    "text": (lambda path: path.write_text("hello, this is text"), "not safetensors, or truncated"),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_that_are_not_safetensors(kind, tmp_path):
    write, message = FILES[kind]
    path = tmp_path / "model.safetensors"
    write(path)
    for place in (path, tmp_path):
        with pytest.raises(nibble.CheckpointError) as caught:
            nibble.open(place, verify=False)
        assert str(path) in str(caught.value) and message in str(caught.value)


def test_loading_a_gguf_file(tmp_path):
    FILES["gguf"][0](tmp_path / "model.gguf")
    with pytest.raises(nibble.CheckpointError, match="`nibble convert FILE -o DIRECTORY`"):
        nibble.load(tmp_path / "model.gguf", device="cpu")
    with pytest.raises(nibble.CheckpointError, match=f"`nibble convert {tmp_path}/model.gguf -o DIRECTORY`"):
        nibble.load(tmp_path, device="cpu")


def test_directories_without_weights(tmp_path):
    cases = {
        "adapter_config.json": r"an adapter, which is loaded onto its base: PeftModel.from_pretrained\(nibble.load",
        "pytorch_model.bin": "its weights are in PyTorch's own files",
        "snapshots/abc/config.json": "an entry of the Hugging Face cache: open .*snapshots/abc$",
        "readme": "no model.safetensors and no model.safetensors.index.json in it$",
    }
    for index, (name, message) in enumerate(cases.items()):
        path = tmp_path / str(index) / name
        path.parent.mkdir(parents=True)
        path.write_text("{}")
        with pytest.raises(nibble.CheckpointError, match=message):
            nibble.open(tmp_path / str(index), verify=False)


def test_names_of_a_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(nibble.CheckpointError, match="`hf download meta-llama/Llama-2-7b-hf --local-dir DIRECTORY`"):
        nibble.load("meta-llama/Llama-2-7b-hf", device="cpu")
    with pytest.raises(nibble.CheckpointError, match="no such file or directory$"):
        nibble.open(str(tmp_path / "a" / "b"))


@pytest.mark.parametrize(
    "option, instead",
    [
        ({"device_map": "auto"}, "device='cuda:0'; mesh= shares it"), ({"config": object()}, "num_labels=3"),
        ({"subfolder": "text"}, "the folder itself"), ({"gguf_file": "x.gguf"}, "nibble convert"),
        ({"state_dict": {}}, "nibble.open gives them"), ({"revision": "main"}, "that revision"),
        ({"tp_plan": "auto"}, "mesh= shares"), ({"output_loading_info": True}, "an error is raised"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_with_another_meaning(option, instead, quantized):
    with pytest.raises(TypeError) as caught:
        nibble.load(quantized, **option)
    assert f"nibble.load takes no {next(iter(option))}: " in str(caught.value) and instead in str(caught.value)


def test_options_that_change_nothing(quantized):
    """As code has them that was written for from_pretrained."""
    nibble.load(quantized, device="cpu", local_files_only=True, low_cpu_mem_usage=True, use_safetensors=True)


@pytest.mark.parametrize("wrong", ["LlamaForCausalLM", torch.nn.Linear, LoraConfig, 3])
def test_a_class_that_is_none(wrong, quantized):
    with pytest.raises(TypeError, match="model_class: a class of transformers' models is expected, not"):
        nibble.load(quantized, device="cpu", model_class=wrong)


def test_a_size_that_is_not_the_checkpoints(tmp_path):
    shutil.copytree(FIXTURE, tmp_path / "copy")
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    (tmp_path / "copy" / "config.json").write_text(json.dumps(config | {"vocab_size": 1088}))
    with pytest.raises(nibble.CheckpointError, match="another shape of tensor 'lm_head.weight' and 1 more"):
        nibble.load(tmp_path / "copy", device="cpu", verify=False)


def test_annotations_are_complete():
    """What py.typed promises to type checkers."""
    for name in nibble.__all__:
        value = getattr(nibble, name)
        members = [value] if inspect.isfunction(value) else [
            getattr(member, "fget", member) for member in vars(value).values()
            if inspect.isfunction(member) or isinstance(member, property)
        ]
        for member in members:
            if member.__name__.startswith("_") and member.__name__ not in ("__init__", "__getitem__", "__iter__"):
                continue
            signature = inspect.signature(member)
            assert signature.return_annotation is not inspect.Signature.empty, member.__qualname__
            for parameter in list(signature.parameters.values()):
                assert parameter.name == "self" or parameter.annotation is not parameter.empty, member.__qualname__
    assert typing.get_origin(nibble.Checkpoint.__orig_bases__[0]).__name__ == "Mapping"
