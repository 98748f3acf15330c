"""The Python package: tensors over the map, and what it says of checkpoints that are not as they should be."""

import json
import os
import pathlib
import pickle
import shutil
import struct

import numpy
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import nibble
from tool import ROOT, Nibble

FIXTURE = ROOT / "fixtures" / "sql-llama"


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> pathlib.Path:
    """One tensor of several pieces, of more bytes than a piece's multiple."""
    folder = tmp_path_factory.mktemp("large")
    values = torch.randn(1500, 1000, generator=torch.Generator().manual_seed(3))
    save_file({"weight": values, "short": values[:3].clone()}, folder / "model.safetensors")
    Nibble().run("convert", folder / "model.safetensors", "-o", folder / "out")
    return folder / "out"


def place(checkpoint: pathlib.Path, name: str) -> dict:
    return json.loads((checkpoint / "nibble-manifest.json").read_text())["tensors"][name]


def flip(checkpoint: pathlib.Path, name: str, at: int) -> pathlib.Path:
    """Flips a bit of a tensor, `at` bytes after its beginning, and keeps the file's time as it was."""
    where = place(checkpoint, name)
    path = checkpoint / where["file"]
    times = path.stat()
    with open(path, "r+b") as file:
        file.seek(where["offset"] + at)
        byte = file.read(1)[0]
        file.seek(where["offset"] + at)
        file.write(bytes([byte ^ 4]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    return path


def test_tensors_are_those_of_safetensors(quantized):
    with nibble.open(quantized) as checkpoint:
        assert checkpoint.bytes_read == 0
        seen = 0
        for path in sorted(quantized.glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                for name in file.keys():
                    tensor, expected = checkpoint[name], file.get_tensor(name)
                    assert tensor.file == str(path) and list(tensor.shape) == list(expected.shape)
                    assert tensor.torch().dtype == expected.dtype and torch.equal(tensor.torch(), expected), name
                    seen += 1
        assert seen == len(checkpoint)
        assert checkpoint.bytes_read == sum(tensor.size for tensor in checkpoint.values())


def test_numpy_and_slices(large):
    with nibble.open(large) as checkpoint, safe_open(large / "model.safetensors", "np") as file:
        expected = file.get_tensor("weight")
        tensor = checkpoint["weight"]
        assert numpy.array_equal(tensor.numpy(), expected)
        assert numpy.array_equal(tensor[200:203].numpy(), expected[200:203])
        assert numpy.array_equal(tensor[-2:, 5].numpy(), expected[-2:, 5])
        assert tensor[9:4].shape == (0, 1000) and len(tensor) == 1500


def test_bfloat16_has_no_numpy_type(quantized):
    with nibble.open(quantized) as checkpoint, pytest.raises(TypeError, match=r"BF16.*use torch\(\)"):
        checkpoint["model.norm.weight"].numpy()


def test_tensors_outlive_the_checkpoint(quantized):
    with nibble.open(quantized) as checkpoint:
        lazy = checkpoint["model.norm.weight"]
        tensor = lazy.torch()
        expected = tensor.clone()
    assert torch.equal(tensor, expected)
    with pytest.raises(nibble.CheckpointError, match="closed"):
        lazy.torch()


def test_writing_to_a_tensor_stays_in_memory(copy):
    before = (copy / place(copy, "model.norm.weight")["file"]).read_bytes()
    with nibble.open(copy) as checkpoint:
        checkpoint["model.norm.weight"].torch().zero_()
    assert (copy / place(copy, "model.norm.weight")["file"]).read_bytes() == before


def test_a_slice_reads_and_checks_its_pieces_only(large):
    with nibble.open(large) as checkpoint:
        weight = checkpoint["weight"]
        assert place(large, "weight")["pieces"]["bytes"] == weight.piece == 256 << 10
        weight[0:10]
        assert checkpoint.bytes_read == weight.piece
        weight[0:60]  # the same piece
        assert checkpoint.bytes_read == weight.piece
        weight[60:70]  # from that piece into the next
        assert checkpoint.bytes_read == 2 * weight.piece
        weight.torch()
        assert checkpoint.bytes_read >= weight.size


def test_damage_is_named_before_it_is_used(copy):
    name = "model.layers.2.mlp.up_proj.weight"
    path = flip(copy, name, 7)
    with nibble.open(copy) as checkpoint:
        for other in checkpoint:
            if other != name:
                checkpoint[other].torch()
        for _ in range(2):  # not only once
            with pytest.raises(nibble.DigestError) as caught:
                checkpoint[name].torch()
        error = caught.value
        assert (error.file, error.tensor) == (str(path), name)
        assert str(path) in str(error) and name in str(error)
        where = place(copy, name)
        assert error.offset == where["offset"] and error.size == where["bytes"] and error.expected == where["xxh3"]
        again = pickle.loads(pickle.dumps(error))
        assert str(again) == str(error) and again.tensor == name
    with nibble.open(copy, verify=False) as checkpoint:
        checkpoint[name].torch()


def test_damage_beside_a_slice_does_not_matter_and_in_it_is_found(large, tmp_path):
    copy = pathlib.Path(shutil.copytree(large, tmp_path / "copy"))
    piece = place(copy, "weight")["pieces"]["bytes"]
    flip(copy, "weight", 2 * piece + 5)
    with nibble.open(copy) as checkpoint:
        weight = checkpoint["weight"]
        weight[0:100]
        with pytest.raises(nibble.DigestError) as caught:
            weight[131:132]
        assert (caught.value.offset, caught.value.size) == (weight.offset + 2 * piece, piece)
    for ahead in (False, True):
        with nibble.open(copy) as checkpoint:
            if ahead:
                checkpoint.check_ahead()
            with pytest.raises(nibble.DigestError) as caught:
                checkpoint["weight"].torch()
            assert (caught.value.tensor, caught.value.offset) == ("weight", weight.offset + 2 * piece)


def truncate(copy: pathlib.Path, by: int) -> None:
    path = sorted(copy.glob("*.safetensors"))[0]
    os.truncate(path, path.stat().st_size - by)


def rewrite_index(copy: pathlib.Path, change) -> None:
    path = copy / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


def rewrite_manifest(copy: pathlib.Path, change) -> None:
    (copy / "checksums.xxh128").unlink()
    path = copy / "nibble-manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


FIRST = "model.embed_tokens.weight"

DAMAGE = {
    "missing shard": (lambda copy: sorted(copy.glob("*.safetensors"))[1].unlink(), "No such file"),
    "truncated shard": (lambda copy: truncate(copy, 100), "truncated"),
    "shard of a few bytes": (lambda copy: os.truncate(sorted(copy.glob("*.safetensors"))[0], 5), "too short"),
    "empty directory": (lambda copy: [path.unlink() for path in copy.iterdir()], "no model.safetensors"),
    "index to elsewhere": (
        lambda copy: rewrite_index(copy, lambda names: names.update({FIRST: "../../etc/passwd"})), "beside it",
    ),
    "index without a tensor": (lambda copy: rewrite_index(copy, lambda names: names.pop(FIRST)), "not in model"),
    "index of another shard": (
        lambda copy: rewrite_index(copy, lambda names: names.update({FIRST: max(names.values())})), "places in",
    ),
    "index that is no JSON": (
        lambda copy: (copy / "model.safetensors.index.json").write_text("{"), "not valid JSON",
    ),
    "manifest altered": (
        lambda copy: (copy / "nibble-manifest.json").write_bytes(
            (copy / "nibble-manifest.json").read_bytes().replace(b'"offset"', b'"0ffset"', 1)
        ),
        "digest",
    ),
    "manifest of another version": (
        lambda copy: rewrite_manifest(copy, lambda manifest: manifest.update(version=2)), "version 2",
    ),
    "manifest with a digest of another form": (
        lambda copy: rewrite_manifest(copy, lambda manifest: manifest["tensors"][FIRST].update(xxh3="xyz")),
        "no digest",
    ),
    "manifest without a tensor": (
        lambda copy: rewrite_manifest(copy, lambda manifest: manifest["tensors"].pop(FIRST)), "not in nibble-manifest",
    ),
    "manifest with a tensor too many": (
        lambda copy: rewrite_manifest(
            copy, lambda manifest: manifest["tensors"].update(more=manifest["tensors"][FIRST])
        ),
        "'more' is missing",
    ),
    "pieces of no size": (
        lambda copy: rewrite_manifest(
            copy, lambda manifest: manifest["tensors"][FIRST].update(pieces={"bytes": 0, "xxh3": ""})
        ),
        "'pieces' is malformed",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_directories_are_refused_when_opened(copy, what):
    damage, message = DAMAGE[what]
    damage(copy)
    with pytest.raises(nibble.CheckpointError, match=message):
        nibble.open(copy)


def header(text: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text + data


HEADERS = {
    "endless": (header(b"{}", length=1 << 62), "a header of"),
    "no object": (header(b"[]"), "not an object"),
    "duplicate": (header(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":1}'), "twice"),
    "hole": (header(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', b"12"), "begins at byte"),
    "trailing": (header(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"12"), "speaks of"),
    "huge shape": (header(b'{"a":{"dtype":"U8","shape":[9e18],"data_offsets":[0,1]}}', b"1"), "list of counts"),
    "product": (
        header(b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,1]}}', b"1"), "do not hold",
    ),
    "dtype": (header(b'{"a":{"dtype":"X\\u001b","shape":[1],"data_offsets":[0,1]}}', b"1"), r"X\\x1b"),
    "deep": (header(b'{"a":' * 100_000), "not valid JSON"),
}


@pytest.mark.parametrize("what", HEADERS)
def test_hostile_headers_are_refused(tmp_path, what):
    data, message = HEADERS[what]
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(nibble.CheckpointError, match=message):
        nibble.open(path, verify=False)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(nibble.CheckpointError, match="not a file"):
        nibble.open(tmp_path / "model.safetensors", verify=False)


def test_a_file_that_changes_under_the_map_is_noticed(copy):
    path = copy / place(copy, FIRST)["file"]
    with nibble.open(copy) as checkpoint:
        os.utime(path)
        with pytest.raises(nibble.CheckpointError, match="written to since"):
            checkpoint[FIRST].torch()
        # Without this check the next touch would end the process with a bus error.
        os.truncate(path, 4096)
        with pytest.raises(nibble.CheckpointError, match="changed while in use"):
            checkpoint[FIRST].torch()


def test_a_replaced_file_is_not_the_open_one(copy):
    path = copy / place(copy, FIRST)["file"]
    with nibble.open(copy) as checkpoint:
        expected = checkpoint[FIRST].torch().clone()
        (copy / "new").write_bytes(b"other")
        (copy / "new").rename(path)
        assert torch.equal(checkpoint[FIRST].torch(), expected)


def test_without_a_manifest(tmp_path):
    with pytest.warns(UserWarning, match="no nibble-manifest.json"), nibble.open(FIXTURE) as checkpoint:
        assert not checkpoint.verified and checkpoint[FIRST].torch().shape == (1024, 256)
    with pytest.raises(nibble.CheckpointError, match="nibble convert"):
        nibble.open(FIXTURE, verify=True)
    with pytest.raises(nibble.CheckpointError, match="no such file"):
        nibble.open(tmp_path / "nothing")


def test_an_edited_configuration_is_said(copy):
    (copy / "config.json").write_text((copy / "config.json").read_text().replace("{", "{ ", 1))
    with pytest.warns(UserWarning, match="config.json: not what was written"):
        nibble.open(copy).close()
