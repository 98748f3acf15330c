"""A model's tokenizer in a GGUF file: llama.cpp reads a text as transformers does."""

import pathlib

import pytest
import transformers

import llama
import tokenizers_of_families as families
from tool import ROOT

SENTENCE_PIECE = [(family, keeps) for family in families.SENTENCE_PIECE for keeps in (True, False)]


@pytest.fixture
def convert(nibble, tmp_path):
    """Makes the GGUF file of a directory."""

    def run(directory: pathlib.Path) -> pathlib.Path:
        out = tmp_path / "model.gguf"
        nibble.run("convert", directory, "-o", out)
        return out

    return run


def differences(directory: pathlib.Path, path: pathlib.Path, contents: list[str], count: int = 3000) -> list:
    """The texts whose ids differ, and what llama.cpp makes of them beside what transformers does."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    found = []
    with llama.Vocabulary(path) as vocabulary:
        for text in families.texts(count, contents):
            ours, theirs = vocabulary.encode(text), tokenizer.encode(text)
            if ours != theirs:
                found.append((text, ours, theirs))
    return found


def test_fixture(convert):
    directory = ROOT / "fixtures" / "sql-llama"
    assert differences(directory, convert(directory), ["<s>", "</s>"]) == []


@pytest.mark.parametrize("family", families.BYTE_LEVEL)
def test_byte_level(family, convert, tmp_path):
    contents = families.make_byte_level(tmp_path / "model", family)
    assert differences(tmp_path / "model", convert(tmp_path / "model"), contents) == []


@pytest.mark.parametrize(("family", "keeps_model"), SENTENCE_PIECE)
def test_sentence_piece(family, keeps_model, convert, tmp_path):
    contents = families.make_sentence_piece(tmp_path / "model", family, keeps_model)
    assert differences(tmp_path / "model", convert(tmp_path / "model"), contents) == []
