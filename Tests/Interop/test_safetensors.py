"""The files themselves, read by the stock safetensors and checked by the stock xxhsum."""

import json
import shutil
import struct
import subprocess

import pytest
import safetensors

from architectures import case

# Bits per element of every dtype that safetensors 0.8 knows.
BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32,
    "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}


def header(path):
    """Its length in bytes and the parsed JSON."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return length, json.loads(file.read(length))


def contents(path):
    """What safetensors' own parser makes of the whole file."""
    return {name: (view["dtype"], view["shape"], bytes(view["data"]))
            for name, view in safetensors.deserialize(path.read_bytes())}


@pytest.fixture(scope="module")
def every_dtype(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dtypes") / "source"
    folder.mkdir()
    entries, data = {}, b""
    for number, (dtype, bits) in enumerate(BITS.items()):
        for name, shape in {"plain": [3, 8], "empty": [0, 5], "scalar": []}.items():
            count = shape[0] * shape[1] if shape else 1
            if count * bits % 8:
                continue
            size = count * bits // 8
            bytes_ = bytes((number * 7 + i) % (2 if dtype == "BOOL" else 251) for i in range(size))
            entries[f"{dtype}.{name}"] = {
                "dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + size]}
            data += bytes_
    text = json.dumps({"__metadata__": {"format": "pt", "origin": "every dtype"}} | entries).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (folder / "config.json").write_text("{}")
    return folder


def test_every_dtype_round_trips(every_dtype, nibble, tmp_path):
    nibble.json("convert", every_dtype, "-o", tmp_path / "out")
    nibble.verify(tmp_path / "out")
    original, result = (contents(folder / "model.safetensors") for folder in (every_dtype, tmp_path / "out"))
    assert {dtype for dtype, _, _ in original.values()} == set(BITS)
    assert result == original


def test_every_dtype_is_listed(every_dtype, nibble):
    listed = {row["name"]: row for row in nibble.json("inspect", every_dtype)["tensors"]}
    _, expected = header(every_dtype / "model.safetensors")
    expected.pop("__metadata__")
    assert set(listed) == set(expected)
    for name, entry in expected.items():
        assert listed[name]["dtype"] == entry["dtype"]
        assert listed[name]["shape"] == entry["shape"]
        assert listed[name]["bytes"] == entry["data_offsets"][1] - entry["data_offsets"][0]


@pytest.fixture(scope="module", params=[[], ["--max-shard-size=50KB"]], ids=["one file", "shards"])
def quantized(request, nibble, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantized")
    case("qwen2").create().save_pretrained(folder / "source")
    nibble.quantize(folder / "source", folder / "out", *request.param)
    return folder / "out"


def test_layout(quantized):
    """Page-aligned data, no holes, packed codes on 64 bytes, statistics next to their weight."""
    shards = sorted(quantized.glob("*.safetensors"))
    assert shards
    for shard in shards:
        length, entries = header(shard)
        assert (8 + length) % 4096 == 0
        assert entries.pop("__metadata__")["format"] == "pt"
        ordered = sorted(entries.items(), key=lambda item: item[1]["data_offsets"])
        end = 0
        for name, entry in ordered:
            assert entry["data_offsets"][0] == end, name
            end = entry["data_offsets"][1]
            if entry["dtype"] == "U8" and name.endswith("_proj.weight"):
                assert entry["data_offsets"][0] % 16 == 0, f"{name}: packed codes are not aligned"
        assert 8 + length + end == shard.stat().st_size
        modules = [name.split(".weight")[0] for name, _ in ordered if ".weight." in name or name.endswith(".weight")]
        changes = sum(a != b for a, b in zip(modules, modules[1:]))
        assert changes == len(set(modules)) - 1, "a weight and its statistics do not stand next to each other"
        contents(shard)


def test_stock_xxhsum_accepts_the_digests(quantized, tmp_path):
    assert shutil.which("xxhsum"), "xxhsum is missing; make test installs it"
    listed = {line.split()[-1] for line in (quantized / "checksums.xxh128").read_text().splitlines()}
    assert listed == {path.name for path in quantized.iterdir()} - {"checksums.xxh128"}
    check = ["xxhsum", "--check", "--quiet", "checksums.xxh128"]
    subprocess.run(check, cwd=quantized, check=True)

    damaged = tmp_path / "damaged"
    shutil.copytree(quantized, damaged)
    shard = next(damaged.glob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-3] ^= 1
    shard.write_bytes(data)
    assert subprocess.run(check, cwd=damaged, capture_output=True).returncode != 0
