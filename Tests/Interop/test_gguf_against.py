"""A GGUF file held to the model that it was made from, by `verify`, by `inspect` and by `fit`."""

import gguf
import numpy as np
import pytest
from safetensors.torch import load_file

from tool import DIFFERENT, ROOT

FIXTURE = ROOT / "fixtures/sql-llama"


@pytest.fixture(scope="module")
def plain(nibble, tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "plain.gguf"
    nibble.run("convert", FIXTURE, "-o", path)
    return path


@pytest.mark.parametrize("scheme", ["q4_k_m", "q8_0", "tq2_0"])
def test_verify(nibble, plain, tmp_path, scheme):
    model = tmp_path / "model.gguf"
    nibble.quantize(FIXTURE, model, "--scheme", scheme)
    for source in (FIXTURE, plain):
        assert not nibble.verify(model, "--against", source)["notChecked"]

    # One bit of one block, and no manifest that would tell.
    (tmp_path / "model.gguf.nibble-manifest.json").unlink()
    tensor = next(each for each in gguf.GGUFReader(model).tensors if each.name == "blk.2.ffn_down.weight")
    data = bytearray(model.read_bytes())
    data[tensor.data_offset + 40] ^= 1
    model.write_bytes(data)
    report = nibble.json("verify", model, "--against", FIXTURE, expect=DIFFERENT)
    problem, = report["problems"]
    assert problem["tensor"] == "blk.2.ffn_down.weight" and problem["problem"].startswith("1 byte is not the one")


def test_importance_is_not_known(nibble, plain, tmp_path):
    """What no one can make again from the weights alone is not called damage."""
    matrix = tmp_path / "some.imatrix"
    writer = gguf.GGUFWriter(matrix, "")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["some.txt"])
    writer.add_uint32("imatrix.chunk_count", 1)
    writer.add_uint32("imatrix.chunk_size", 512)
    columns = {tensor.name: int(tensor.shape[0]) for tensor in gguf.GGUFReader(plain).tensors}
    for name, count in columns.items():
        if name.startswith("blk.") and "norm" not in name:
            writer.add_tensor(name + ".in_sum2", np.linspace(1, 9, count, dtype=np.float32))
            writer.add_tensor(name + ".counts", np.ones(1, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = tmp_path / "model.gguf"
    nibble.quantize(FIXTURE, model, "--scheme", "q4_k_m", "--imatrix", matrix)
    report = nibble.json("verify", model, "--against", FIXTURE)
    assert report["ok"] and any("importance" in note for note in report["notChecked"])


@pytest.mark.parametrize("against", ["directory", "file"])
def test_error_of_quantization(nibble, plain, tmp_path, against):
    model = tmp_path / "model.gguf"
    nibble.quantize(FIXTURE, model, "--scheme", "q4_k_m")
    report = nibble.json("inspect", model, "--stats", "--against", FIXTURE if against == "directory" else plain)
    rows = {row["name"]: row["stats"] for row in report["tensors"]}
    weights = {}
    for path in FIXTURE.glob("*.safetensors"):
        weights |= load_file(path)
    expected = weights["model.layers.1.mlp.up_proj.weight"].float().numpy()
    tensor = next(each for each in gguf.GGUFReader(model).tensors if each.name == "blk.1.ffn_up.weight")
    error = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(expected.shape) - expected
    found = rows["blk.1.ffn_up.weight"]["error"]
    assert found["rmse"] == pytest.approx(float(np.sqrt(np.square(error.astype(np.float64)).mean())), rel=1e-6)
    assert found["maxAbs"] == pytest.approx(float(np.abs(error).max()), rel=1e-6)
    assert "error" not in rows["output_norm.weight"]


def test_fit(nibble, plain):
    """What training takes is the same, whatever the model lies in."""
    report, expected = (nibble.json("fit", path, "--gpus", "2x24GiB") for path in (plain, FIXTURE))
    assert report["strategies"] == expected["strategies"] and report["strategies"]
