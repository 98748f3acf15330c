"""A Hugging Face model in GGUF is what llama.cpp's own converter makes of it: metadata, names, order of rows, bytes."""

import json
import pathlib
import shutil

import pytest

import gguf_families
import gguf_oracle
from architectures import F32
from gguf_families import FAMILIES, Family, as_transformers_4
from tool import ROOT, Nibble

FIXTURE = ROOT / "fixtures" / "sql-llama"

# The one deliberate difference: left to itself the converter rounds the matrices of an F32 model to F16, and Nibble
# keeps a type that nobody asked to change. Told to write F32, the converter writes the same file.
DEFAULT = {F32: "f32"}

# Key: what is different and why. Nothing is.
DIFFERENT_METADATA = {}

every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@pytest.fixture(scope="module", autouse=True)
def converter():
    """Begins to import what it needs while the first models are made."""
    return gguf_oracle.worker()


def check_same(mine: pathlib.Path, theirs: pathlib.Path, is_ordered: bool = True) -> None:
    """Part by part, for a message that says where; then every byte, padding included."""
    found, expected = gguf_oracle.read(mine), gguf_oracle.read(theirs)
    for key, (kind, value) in expected["metadata"].items():
        if key not in DIFFERENT_METADATA:
            assert found["metadata"].get(key) == (kind, value), key
    assert list(found["metadata"]) == list(expected["metadata"])
    for name, tensor in expected["tensors"].items():
        assert found["tensors"].get(name) == tensor, name
    if is_ordered:
        assert list(found["tensors"]) == list(expected["tensors"])
        assert DIFFERENT_METADATA or mine.read_bytes() == theirs.read_bytes()
    assert found["tensors"].keys() == expected["tensors"].keys()


@every_family
def test_is_what_the_converter_writes(family: Family, families, nibble: Nibble, tmp_path):
    mine = tmp_path / "model.gguf"
    nibble.run("convert", families.directory(family), "-o", mine)
    check_same(mine, families.converted(family, DEFAULT.get(family.dtype, "auto")))


@pytest.mark.parametrize("name", ["llama-biases-linear", "mixtral", "gpt2", "gemma2"])
@pytest.mark.parametrize(("dtype", "outtype"), [("float16", "f16"), ("bfloat16", "bf16"), ("float32", "f32")])
def test_other_types(name, dtype, outtype, families, nibble: Nibble, tmp_path):
    """Rounded as the converter rounds; what it keeps in F32 stays."""
    family = gguf_families.family(name)
    mine = tmp_path / "model.gguf"
    nibble.run("convert", families.directory(family), "-o", mine, "--dtype", dtype)
    check_same(mine, families.converted(family, outtype))


@pytest.mark.parametrize("name", [
    "llama-llama3-tied", "llama-biases-linear", "qwen2-yarn", "gemma3-scaled", "gemma3-vision", "phi3-long", "olmo2"])
def test_older_configuration(name, families, nibble: Nibble, tmp_path):
    """The same file."""
    family = gguf_families.family(name)
    directory = pathlib.Path(shutil.copytree(families.directory(family), tmp_path / family.directory))
    config = as_transformers_4(json.loads((directory / "config.json").read_text()))
    assert "rope_parameters" not in json.dumps(config)
    (directory / "config.json").write_text(json.dumps(config))
    nibble.run("convert", directory, "-o", tmp_path / "model.gguf")
    check_same(tmp_path / "model.gguf", families.converted(family, DEFAULT.get(family.dtype, "auto")))


def test_fixture(nibble: Nibble, tmp_path):
    """Several shards; a vocabulary of SentencePiece in all its types."""
    nibble.run("convert", FIXTURE, "-o", tmp_path / "mine.gguf")
    check_same(tmp_path / "mine.gguf", gguf_oracle.convert(FIXTURE, tmp_path / "theirs.gguf"))


def test_difference_is_seen(families, nibble: Nibble, tmp_path):
    """The comparison has teeth: one bit of a tensor, one character of a key."""
    theirs = families.converted(FAMILIES[0], "auto")
    whole = theirs.read_bytes()
    for position in (len(whole) - 1000, whole.index(b"llama.context_length") + 6):
        changed = bytearray(whole)
        changed[position] ^= 1
        (tmp_path / "changed.gguf").write_bytes(changed)
        with pytest.raises(AssertionError):
            check_same(tmp_path / "changed.gguf", theirs)
