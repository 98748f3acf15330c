"""`nibble.load` in one process: memory, faults, and what belongs to a model beside its weights."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

import nibble
import oracle
from test_python_open import DAMAGE, flip
from tool import ROOT, Nibble

FIXTURE = ROOT / "fixtures" / "sql-llama"


def test_it_is_what_from_pretrained_gives(quantized):
    mine, theirs = nibble.load(quantized, device="cpu", verify=True), AutoModelForCausalLM.from_pretrained(quantized)
    assert oracle.check_identical(mine, theirs) == 28
    assert mine.generation_config.to_dict() == theirs.generation_config.to_dict()
    assert mine.name_or_path == theirs.name_or_path == str(quantized)
    assert not mine.training and mine.is_loaded_in_4bit and mine.hf_quantizer.is_trainable
    tokenizer = AutoTokenizer.from_pretrained(quantized)
    prompt = tokenizer("SELECT", return_tensors="pt")
    options = {"max_new_tokens": 8, "do_sample": False}
    assert torch.equal(mine.generate(**prompt, **options), theirs.generate(**prompt, **options))


def test_16_bit_checkpoints_and_other_dtypes(tmp_path):
    Nibble().run("convert", FIXTURE, "-o", tmp_path / "out")
    for dtype in ("auto", torch.float32):
        mine = nibble.load(tmp_path / "out", device="cpu", dtype=dtype)
        oracle.check_identical(mine, AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=dtype))


def test_with_an_adapter(quantized):
    model = nibble.load(quantized, device="cpu", peft_config=LoraConfig(r=8, target_modules=["q_proj"]))
    assert isinstance(model, PeftModel)
    assert {name.split(".")[-3] for name, value in model.named_parameters() if value.requires_grad} <= {
        "lora_A", "lora_B"
    }


def test_an_adapter_that_cannot_be_written(quantized, tmp_path):
    (tmp_path / "file").write_text("")
    model = nibble.load(quantized, device="cpu", peft_config=LoraConfig(r=8, target_modules=["q_proj"]))
    with pytest.raises(nibble.CheckpointError, match="could not be written"):
        nibble.save_adapter(model, tmp_path / "file")
    with pytest.raises(nibble.CheckpointError, match="has no adapter"):
        nibble.save_adapter(nibble.load(quantized, device="cpu"), tmp_path / "adapter")


def test_a_file_is_not_a_model(quantized):
    with pytest.raises(nibble.CheckpointError, match="its directory"):
        nibble.load(sorted(quantized.glob("*.safetensors"))[0], device="cpu")


def test_a_damaged_weight_never_reaches_the_model(copy):
    name = "model.layers.3.self_attn.q_proj.weight"
    flip(copy, name, 5)
    with pytest.raises(nibble.DigestError, match=name):
        nibble.load(copy, device="cpu")
    nibble.load(copy, device="cpu", verify=False)


@pytest.mark.parametrize("what", ["missing shard", "truncated shard", "empty directory", "index to elsewhere"])
def test_a_damaged_directory(copy, what):
    damage, message = DAMAGE[what]
    damage(copy)
    with pytest.raises(nibble.CheckpointError, match=message):
        nibble.load(copy, device="cpu")


def test_a_model_that_is_not_complete(copy):
    config = json.loads((copy / "config.json").read_text())
    config["num_hidden_layers"] += 1
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match="config.json"), pytest.raises(nibble.CheckpointError, match="has no tensor"):
        nibble.load(copy, device="cpu")


def test_a_directory_without_a_model(copy):
    (copy / "config.json").write_text("{")
    with pytest.warns(UserWarning, match="config.json"), pytest.raises(nibble.CheckpointError, match="config.json"):
        nibble.load(copy, device="cpu")


MEASURE = """
import sys, torch, transformers, nibble
transformers.utils.logging.disable_progress_bar()
def private():
    lines = (line.split() for line in open("/proc/self/smaps_rollup"))
    return {fields[0]: int(fields[1]) * 1024 for fields in lines if fields[-1] == "kB"}["Private_Dirty:"]
nibble.load(sys.argv[1], device="cpu")
before = private()
model = nibble.load(sys.argv[2], device="cpu", verify=True)
print(private() - before, model.nibble_bytes_read)
"""


def test_weights_are_pages_of_the_file(tmp_path, quantized):
    """Nothing of them is copied: the process owns less than a layer more than before."""
    sys.path.insert(0, str(ROOT / "Tests" / "Bench"))
    import models

    shape = models.Shape(layers=4, hidden=1024, intermediate=2816, heads=8, vocabulary=8192)
    models.ensure(shape, tmp_path / "bf16")
    Nibble().quantize(tmp_path / "bf16", tmp_path / "nf4")
    command = [sys.executable, "-c", MEASURE, str(quantized), str(tmp_path / "nf4")]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "Sources" / "Python")}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    private, read = map(int, finished.stdout.split())
    assert read > 50e6
    assert private < shape.quantized_parameters // shape.layers // 2


def test_the_package_installs(tmp_path):
    """From a copy, as pip gets it; building must not leave anything in the sources."""
    source = shutil.copytree(ROOT / "Sources" / "Python", tmp_path / "source")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(tmp_path / "site"), str(source)], check=True, timeout=120)
    code = "import nibble; print(nibble.__version__, nibble.__file__)"
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    finished = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, cwd=tmp_path
    )
    version, path = finished.stdout.split()
    assert path.startswith(str(tmp_path / "site"))
    # Without it type checkers take everything for Any.
    assert (tmp_path / "site" / "nibble" / "py.typed").exists()
    assert Nibble().run("--version").stdout.split()[1] == version
