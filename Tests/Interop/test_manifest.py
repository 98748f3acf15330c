"""The digests of pieces, by the stock xxHash: what a process checks that reads a slice of a tensor."""

import json
import math

import numpy
import pytest
import safetensors.numpy
import xxhash

MEBIBYTE = 1 << 20


@pytest.fixture(scope="module", params=["quantize", "convert"])
def written(request, nibble, tmp_path_factory):
    """Tensors of less than 1 MiB, of a few, and of more than 32."""
    folder = tmp_path_factory.mktemp("pieces")
    (folder / "source").mkdir()
    generator = numpy.random.default_rng(7)
    shapes = {
        "model.embed_tokens.weight": (8200, 2048), "model.layers.0.mlp.down_proj.weight": (2048, 2080),
        "model.layers.0.self_attn.q_proj.weight": (512, 512), "model.layers.0.input_layernorm.weight": (2048,),
    }
    tensors = {name: generator.standard_normal(shape).astype(numpy.float16) for name, shape in shapes.items()}
    safetensors.numpy.save_file(tensors, folder / "source" / "model.safetensors", {"format": "pt"})
    config = {"architectures": ["TestForCausalLM"], "model_type": "test", "dtype": "float16"}
    (folder / "source" / "config.json").write_text(json.dumps(config))
    nibble.json(request.param, folder / "source", "-o", folder / "out")
    return folder / "out"


def test_pieces(written):
    entries = json.loads((written / "nibble-manifest.json").read_text())["tensors"]
    sizes = set()
    for name, entry in entries.items():
        pieces = entry.get("pieces")
        assert (pieces is not None) == (entry["bytes"] > MEBIBYTE), name
        if pieces is None:
            continue
        size = pieces["bytes"]
        assert size == next(1 << n for n in range(18, 64) if math.ceil(entry["bytes"] / (1 << n)) <= 128), name
        sizes.add(size)
        with open(written / entry["file"], "rb") as file:
            for number in range(math.ceil(entry["bytes"] / size)):
                file.seek(entry["offset"] + number * size)
                piece = file.read(min(size, entry["bytes"] - number * size))
                expected = pieces["xxh3"][16 * number : 16 * number + 16]
                assert xxhash.xxh3_64_hexdigest(piece) == expected, f"piece {number} of {name}"
        assert len(pieces["xxh3"]) == 16 * math.ceil(entry["bytes"] / size), name
    assert sizes == {MEBIBYTE // 4, MEBIBYTE // 2}


def test_without_pieces(written, nibble, tmp_path):
    """What Nibble wrote before there were pieces."""
    manifest = json.loads((written / "nibble-manifest.json").read_text())
    for entry in manifest["tensors"].values():
        entry.pop("pieces", None)
    (tmp_path / "old.json").write_text(json.dumps(manifest))
    report = nibble.verify(written, "--manifest", tmp_path / "old.json")
    assert report["tensorsChecked"] == len(manifest["tensors"])
