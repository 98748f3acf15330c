"""A model that went into GGUF and came back: transformers loads the same one, and it goes in again as the same file."""

import pathlib

import pytest
import torch
import transformers

import checkpoint
import gguf_families
from gguf_families import Family
from test_gguf_families import check_same, every_family
from tokenizers_of_families import texts
from tool import ROOT, Nibble

FIXTURE = ROOT / "fixtures" / "sql-llama"

# Gemma's norms are stored in GGUF with one added, which rounds.
ROUNDED = {"gemma", "gemma2", "gemma3", "gemma3-scaled", "gemma3-vision"}


def back(nibble: Nibble, directory: pathlib.Path, folder: pathlib.Path, *options) -> tuple[pathlib.Path, pathlib.Path]:
    """The GGUF file, and the directory made of it, named as the first one: the name is in `general.name`."""
    file, out = folder / "model.gguf", folder / directory.name
    nibble.run("convert", directory, "-o", file)
    nibble.run("convert", file, "-o", out, *options)
    return file, out


# What llama.cpp's form of a family has no place for: it runs Mistral without a window.
LOST = {"mistral": {"sliding_window": None}}


def load(directory: pathlib.Path, **settings) -> torch.nn.Module:
    """In float32, so that nothing but the weights makes a difference."""
    name, = transformers.AutoConfig.from_pretrained(directory).architectures
    model, information = getattr(transformers, name).from_pretrained(
        directory, dtype=torch.float32, output_loading_info=True, **settings)
    assert not any(information.values()), information
    return model.eval()


def outputs(model: torch.nn.Module) -> torch.Tensor:
    """For a text beyond the windows, and for one beyond the lengths that ropes are scaled from."""
    tokens = torch.randint(3, 700, (2, 90), generator=torch.Generator().manual_seed(7))
    with torch.inference_mode():
        found = [model(input_ids=part) for part in (tokens[:, :40], tokens)]
    return torch.cat([output.logits if "logits" in output else output.last_hidden_state for output in found], dim=1)


@every_family
def test_same_file(family: Family, families, nibble: Nibble, tmp_path):
    file, out = back(nibble, families.directory(family), tmp_path)
    nibble.run("convert", out, "-o", tmp_path / "again.gguf")
    check_same(tmp_path / "again.gguf", file)


@pytest.mark.kernels
@every_family
def test_same_model(family: Family, families, nibble: Nibble, tmp_path):
    """A file does not tell a model without a head from one whose head is its embedding, so the latter comes back."""
    _, out = back(nibble, families.directory(family), tmp_path)
    original, returned = load(families.directory(family), **LOST.get(family.name, {})), load(out)
    if family.name == "llama-headless":
        returned = returned.model
    expected, found = outputs(original), outputs(returned)
    assert torch.isfinite(expected).all() and expected.std() > 0.01
    if family.name in ROUNDED:
        assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()
    else:
        assert torch.equal(found, expected)


@every_family
def test_same_tokenizer(family: Family, families, nibble: Nibble, tmp_path):
    _, out = back(nibble, families.directory(family), tmp_path)
    original = transformers.AutoTokenizer.from_pretrained(families.directory(family))
    returned = transformers.AutoTokenizer.from_pretrained(out)
    assert returned.get_vocab() == original.get_vocab()
    for text in texts(300, sorted(original.all_special_tokens)):
        ids = original.encode(text)
        assert returned.encode(text) == ids, text
        assert returned.decode(ids) == original.decode(ids), text
    for role in ("bos", "eos"):
        assert getattr(returned, f"{role}_token_id") == getattr(original, f"{role}_token_id"), role


def test_fixture(nibble: Nibble, tmp_path):
    """Its matrices come back bit for bit, in the type they had; vectors are in F32, as GGUF has them. Tensors lie in the
    order of the shards that they come from, which were two and are one."""
    file, out = back(nibble, FIXTURE, tmp_path)
    original, returned = checkpoint.tensors(FIXTURE), checkpoint.tensors(out)
    assert returned.keys() == original.keys()
    for name, tensor in original.items():
        assert checkpoint.same(returned[name], tensor.float() if tensor.ndim == 1 else tensor), name
    nibble.run("convert", out, "-o", tmp_path / "again.gguf")
    check_same(tmp_path / "again.gguf", file, is_ordered=False)


@pytest.mark.parametrize("name", ["llama", "mixtral", "qwen2-moe", "gpt2", "phi3"])
def test_blocks_are_decoded(name, families, nibble: Nibble, tmp_path):
    """gguf-py decodes the same values, bit for bit, wherever they go: rows of heads, experts, turned matrices."""
    import gguf

    directory = families.directory(gguf_families.family(name))
    file, out = tmp_path / "model.gguf", tmp_path / directory.name
    nibble.quantize(directory, file, "--scheme", "q4_0")
    nibble.run("convert", file, "-o", out, "--dtype", "float32")
    nibble.run("convert", out, "-o", tmp_path / "again.gguf")
    decoded = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "again.gguf").tensors}
    stored = gguf.GGUFReader(file).tensors
    assert {tensor.tensor_type.name for tensor in stored} >= {"Q4_0", "F32"}
    for tensor in stored:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        assert decoded[tensor.name].data.tobytes() == values.tobytes(), tensor.name
