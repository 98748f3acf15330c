"""Directories of torch.distributed.checkpoint as a source, made by processes of torchrun."""

import os
import pathlib
import pickle
import shutil
import subprocess
import sys

import pytest
import torch
import torch.distributed.checkpoint
import transformers
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

import checkpoint
from checkpoint import same
from tool import MISSING, REJECTED

SCRIPT = pathlib.Path(__file__).with_name("distributed_files.py")


def make(kind: str, processes: int, out: pathlib.Path) -> pathlib.Path:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
               str(SCRIPT), kind, str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert result.returncode == 0, result.stderr
    return out


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Of two processes; not to be changed."""
    return make("model", 2, tmp_path_factory.mktemp("fsdp"))


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """Each is made when it is first asked for; not to be changed."""
    made = {}

    def directory(processes: int) -> pathlib.Path:
        if processes not in made:
            made[processes] = make("forms", processes, tmp_path_factory.mktemp("forms"))
        return made[processes]

    return directory


@pytest.fixture
def pieces(tmp_path_factory, tmp_path):
    return make("pieces", 2, tmp_path)


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_pieces(nibble, tmp_path, processes):
    """Rows, uneven and empty ones, columns, slices of three dimensions, boxes: the whole, byte for byte."""
    make("pieces", processes, tmp_path)
    nibble.run("convert", tmp_path / "checkpoint", "-o", tmp_path / "out", "--quiet")
    found = checkpoint.tensors(tmp_path / "out")
    expected = checkpoint.shard_tensors(tmp_path / "whole.safetensors")
    assert found.keys() == expected.keys()
    assert not [name for name, tensor in expected.items() if not same(found[name], tensor)]


def expect(nibble, source, whole, out) -> None:
    nibble.run("convert", source, "-o", out, "--quiet")
    found = checkpoint.tensors(out)
    assert found.keys() == whole.keys()
    assert not [name for name, tensor in whole.items() if not same(found[name], tensor)]


@pytest.mark.parametrize("processes", [2, 3, pytest.param(4, marks=pytest.mark.long)])
def test_forms(nibble, forms, tmp_path, processes):
    """Safetensors with and without `.metadata`, shards of one and of two files, joined ones, compressed parts, DTensors
    of each rank: the same tensors, byte for byte."""
    source = forms(processes)
    whole = checkpoint.shard_tensors(source / "whole.safetensors")
    for form in ("files", "shards", "compressed", "ranks", "one"):
        expect(nibble, source / form, whole, tmp_path / form)
    real = {name: tensor for name, tensor in whole.items() if tensor.is_floating_point()}
    # PyTorch 2.13 joins scalars to zero.
    joined = checkpoint.tensors(source / "joined")
    assert {name for name, tensor in real.items() if not same(joined[name], tensor)} <= {"scalar"}
    expect(nibble, source / "joined", joined, tmp_path / "joined")
    shutil.copytree(source / "joined/sharded", tmp_path / "alone/sharded")
    expect(nibble, source / "joined/sharded", real, tmp_path / "sharded")
    expect(nibble, tmp_path / "alone", real, tmp_path / "found")
    error = nibble.run("inspect", source / "shards").stderr
    assert f"put together from {processes} files; nothing says how many there have been" in error


def test_damaged_forms(nibble, forms, tmp_path):
    source = forms(2)

    def refused(form, change, text, code=REJECTED):
        broken = shutil.copytree(source / form, tmp_path / "broken")
        change(broken)
        assert text in nibble.run("convert", broken, "-o", tmp_path / "out", expect=code).stderr
        assert not (tmp_path / "out").exists()
        shutil.rmtree(broken)

    def flipped(name, offset):
        def change(folder):
            data = bytearray((folder / name).read_bytes())
            data[offset] ^= 1
            (folder / name).write_bytes(data)
        return change

    refused("files", lambda folder: (folder / "__1_0.distcp").unlink(), "__1_0.distcp: ", MISSING)
    refused("files", lambda folder: (folder / ".metadata").unlink(), "the save was not finished", MISSING)
    first, second = "shard-00001-model-00001-of-00001.safetensors", "shard-00002-model-00001-of-00001.safetensors"
    refused("shards", lambda folder: (folder / first).unlink(), "elements in its 1 part")
    refused("shards", lambda folder: shutil.copy(folder / first, folder / second), "in its 2 parts")
    refused("shards", lambda folder: os.truncate(folder / second, 5000), "data is cut short")
    refused("compressed", flipped("__0_0.distcp", 0), "is no data of Zstandard as it says")
    refused("ranks", lambda folder: (folder / "model_world_size_2_rank_1.pt").unlink(), "the run had 2 ranks", MISSING)
    refused(
        "ranks", lambda folder: shutil.copy(
            folder / "model_world_size_2_rank_0.pt", folder / "model_world_size_2_rank_1.pt"), "has a part of shape")


@pytest.mark.parametrize("processes", [2, 4, pytest.param(3, marks=pytest.mark.long)])
def test_verl(nibble, tmp_path, processes):
    """The names of transformers; configuration and tokenizer from beside, or from where --config says."""
    make("verl", processes, tmp_path)
    step, plain = tmp_path / "global_step_10", tmp_path / "plain"
    whole = checkpoint.tensors(plain)
    for number, path in enumerate([step, step / "actor"]):
        out = tmp_path / f"{number}"
        expect(nibble, path, whole, out)
        assert checkpoint.config(out) == checkpoint.config(plain)
        assert (out / "tokenizer_config.json").read_bytes() == (plain / "tokenizer_config.json").read_bytes()
    warnings = nibble.run("inspect", step).stderr
    assert f"left out {2 * processes} files of optimizers and of the run's state" in warnings
    if processes > 2:
        return
    nibble.quantize(plain, tmp_path / "nf4")
    (step / "actor/huggingface").rename(tmp_path / "elsewhere")
    assert "--config" in nibble.run("convert", step, "-o", tmp_path / "bare").stderr
    assert "--config" in nibble.run("fit", step, expect=MISSING).stderr
    options = ["--config", tmp_path / "elsewhere"]
    nibble.run("quantize", step, "-o", tmp_path / "again", *options)
    assert nibble.json("diff", tmp_path / "again", tmp_path / "nf4")["equal"]
    assert nibble.json("verify", tmp_path / "again", "--against", step, *options)["ok"]
    assert nibble.json("fit", step, *options)["parameters"] == nibble.json("fit", plain)["parameters"]
    nibble.run("convert", step, "-o", tmp_path / "2", *options)
    assert {path.name for path in (tmp_path / "2").iterdir()} == {path.name for path in (tmp_path / "0").iterdir()}
    assert checkpoint.config(tmp_path / "2") == checkpoint.config(plain)
    wrong = nibble.run("convert", step, "-o", tmp_path / "3", "--config", step, expect=MISSING).stderr
    assert "has no config.json" in wrong


def test_model(nibble, model, tmp_path):
    """The directory of the Trainer, and the one in it: the names of transformers, config.json from beside."""
    expected = checkpoint.tensors(model / "plain")
    for number, path in enumerate([model, model / "pytorch_model_fsdp_0"]):
        out = tmp_path / str(number)
        nibble.run("convert", path, "-o", out, "--quiet")
        found = checkpoint.tensors(out)
        assert found.keys() == expected.keys()
        assert all(same(found[name], tensor) for name, tensor in expected.items())
        assert checkpoint.config(out) == checkpoint.config(model)
        nibble.quantize(path, tmp_path / f"{number}-nf4")
        nibble.verify(tmp_path / f"{number}-nf4", "--against", model / "plain")
    nibble.quantize(model / "plain", tmp_path / "nf4")
    assert nibble.json("diff", tmp_path / "0-nf4", tmp_path / "nf4")["equal"]
    assert nibble.json("fit", model)["parameters"] == nibble.json("fit", model / "plain")["parameters"]
    assert nibble.json("verify", model)["ok"]


def test_optimizer_states_are_left_out(nibble, model):
    report = nibble.json("inspect", model / "together")
    assert not any("exp_avg" in row["name"] or "optim" in row["name"] for row in report["tensors"])
    assert len(report["tensors"]) == len(checkpoint.tensors(model / "plain"))
    assert "of an optimizer's state" in nibble.run("inspect", model / "together").stderr


def test_an_unfinished_save(nibble, pieces):
    (pieces / "checkpoint/.metadata").rename(pieces / "checkpoint/.metadata.tmp")
    for verb in ("inspect", "verify"):
        error = nibble.run(verb, pieces / "checkpoint", expect=MISSING).stderr
        assert "has no '.metadata', which is written last: the save was not finished" in error


def test_damage(nibble, pieces, tmp_path):
    """A file that is gone, one that is short, metadata that point elsewhere or describe other parts."""
    source = pieces / "checkpoint"
    assert nibble.json("verify", source)["ok"]

    def refused(change, text, code=REJECTED):
        broken = shutil.copytree(source, tmp_path / "broken")
        change(broken)
        assert text in nibble.run("convert", broken, "-o", tmp_path / "out", expect=code).stderr
        assert not (tmp_path / "out").exists()
        shutil.rmtree(broken)

    def metadata(edit):
        def change(folder):
            content = pickle.loads((folder / ".metadata").read_bytes())
            edit(content)
            (folder / ".metadata").write_bytes(pickle.dumps(content))
        return change

    def place(content):
        return next(place for key, place in content.storage_data.items() if key.fqn == "rows")

    def elsewhere(content):
        place(content).relative_path = "../whole.safetensors"

    def beyond(content):
        place(content).length += 1 << 40

    def larger(content):
        content.state_dict_metadata["rows"].size = type(content.state_dict_metadata["rows"].size)((6, 3))

    def nowhere(content):
        for key in [key for key in content.storage_data if key.fqn == "rows"][:1]:
            del content.storage_data[key]

    refused(lambda folder: (folder / "__1_0.distcp").unlink(), "__1_0.distcp: ", MISSING)
    refused(lambda folder: os.truncate(folder / "__0_0.distcp", 5000), "__0_0.distcp")
    refused(lambda folder: os.truncate(folder / ".metadata", 700), ".metadata")
    refused(metadata(elsewhere), "which is not a plain name of a file")
    refused(metadata(beyond), "are outside it")
    refused(metadata(larger), "elements in its 2 parts, its shape [6, 3] has 18")
    refused(metadata(nowhere), "that is stored nowhere")


def optimizer(net: torch.nn.Module, kind: type, **options) -> dict:
    made = kind(net.parameters(), **options)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    made.step()
    return get_optimizer_state_dict(net, made)


def net() -> torch.nn.Module:
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 3))


def saved(content: dict, folder: pathlib.Path) -> pathlib.Path:
    torch.distributed.checkpoint.save(content, checkpoint_id=str(folder), no_dist=True)
    return folder


SGD = {"kind": torch.optim.SGD, "lr": 0.1, "momentum": 0.9}
ADAM = {"kind": torch.optim.AdamW}
# What is saved around the model's state_dict.
DICTIONARIES = {
    "plain": lambda model, net: model,
    "model": lambda model, net: {"model": model},
    "with-optimizer": lambda model, net: {"model": model, "optimizer": optimizer(net, **ADAM), "step": 3},
    # PyTorch's recipe.
    "app": lambda model, net: {"app": {"model": model, "optim": optimizer(net, **SGD)}},
    "long-names": lambda model, net: {"model_state_dict": model, "optimizer_state_dict": optimizer(net, **SGD)},
    "other-name": lambda model, net: {"model": model, "opt": optimizer(net, **SGD)},
    "numbered": lambda model, net: {"model": model, "opt": stepped(net).state_dict()},
    "flattened": lambda model, net: {
        "model": model, "opt": {"state.0.weight.momentum": torch.ones(3, 3), "param_groups.0.weight.lr": 0.1}},
    "random": lambda model, net: {"state_dict": model, "rng": torch.arange(5), "loss": torch.ones(())},
    "copy": lambda model, net: {"model": model, "ema": {name: tensor + 1 for name, tensor in model.items()}},
}


def stepped(net: torch.nn.Module) -> torch.optim.Optimizer:
    made = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    made.step()
    return made


@pytest.mark.parametrize("name", DICTIONARIES)
def test_dictionaries(nibble, tmp_path, name):
    """Of dictionaries in a dictionary the model's, under its own names: never a tensor of an optimizer, nor a copy."""
    made = net()
    model = {key: tensor.detach().clone() for key, tensor in made.state_dict().items()}
    source = saved(DICTIONARIES[name](model, made), tmp_path / "source")
    nibble.run("convert", source, "-o", tmp_path / "out")
    found = checkpoint.tensors(tmp_path / "out")
    assert found.keys() == model.keys()
    assert all(same(found[key], tensor) for key, tensor in model.items())


def test_other_keys_stay(nibble, tmp_path):
    """Keys that mean no dictionary of a model's are parts of the names, and so is what only looks like a state."""
    ones = torch.ones(2, 3)
    for number, content in enumerate([
        {"layers": [{"w": ones}, {"w": ones + 1}]}, {"state.w": ones, "net.w": ones + 1}, {"model.layers.0.w": ones},
    ]):
        nibble.run("convert", saved(content, tmp_path / f"{number}"), "-o", tmp_path / f"out-{number}")
        names = checkpoint.tensors(tmp_path / f"out-{number}").keys()
        assert names == [{"layers.0.w", "layers.1.w"}, {"state.w", "net.w"}, {"model.layers.0.w"}][number]


def test_two_models(nibble, tmp_path):
    ones = torch.ones(2, 3)
    one = {"w": ones}
    for number, content in enumerate([{"model": one, "state_dict": one}, {"model": one, "w": ones}]):
        source = saved(content, tmp_path / f"{number}")
        assert "which are the model is not clear" in nibble.run(
            "convert", source, "-o", tmp_path / "out", expect=REJECTED).stderr


@pytest.mark.parametrize("kind", ["BertModel", "BertForSequenceClassification", "LlamaModel"])
def test_classes(nibble, tmp_path, kind):
    """Whatever the names begin with, without the key that they were saved under."""
    torch.manual_seed(2)
    model_class = getattr(transformers, kind)
    config = model_class.config_class(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, vocab_size=64)
    model = model_class(config)
    model.config.architectures = [kind]
    model.config.save_pretrained(tmp_path / "source")
    saved({"model": model.state_dict()}, tmp_path / "source/pytorch_model_fsdp_0")
    nibble.run("convert", tmp_path / "source", "-o", tmp_path / "out")
    assert checkpoint.tensors(tmp_path / "out").keys() == model.state_dict().keys()
