"""A model's tokenizer in a GGUF file: what llama.cpp's converter makes of it, and llama.cpp reads a text with it as
transformers does."""

import pathlib
import re
import unicodedata

import pytest
import transformers

import gguf_oracle
import llama
import tokenizers_of_families as families
from tool import ROOT

SENTENCE_PIECE = [(family, keeps) for family in families.SENTENCE_PIECE for keeps in (True, False)]
OTHER_SPACES = "\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"
FIXTURE = ROOT / "fixtures" / "sql-llama"


@pytest.fixture
def convert(nibble, tmp_path):
    """Makes the GGUF file of a directory."""

    def run(directory: pathlib.Path) -> pathlib.Path:
        out = tmp_path / "model.gguf"
        nibble.run("convert", directory, "-o", out)
        return out

    return run


def differences(directory: pathlib.Path, path: pathlib.Path, texts: list[str]) -> list:
    """The texts whose ids differ, and what llama.cpp makes of them beside what transformers does."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    found = []
    with llama.Vocabulary(path) as vocabulary:
        for text in texts:
            ours, theirs = vocabulary.encode(text), tokenizer.encode(text)
            if ours != theirs:
                found.append((text, ours, theirs))
    return found


def test_fixture(convert):
    texts = families.texts(3000, ["<s>", "</s>", "<pad>"]) + families.wild(1500, ["<s>", "</s>"])
    assert differences(FIXTURE, convert(FIXTURE), texts) == []


@pytest.mark.parametrize("family", families.BYTE_LEVEL)
def test_byte_level(family, convert, tmp_path):
    contents = families.make_byte_level(tmp_path / family, family)
    path = convert(tmp_path / family)
    theirs = gguf_oracle.convert(tmp_path / family, tmp_path / "theirs.gguf", "f32", families.PRE[family])
    assert path.read_bytes() == theirs.read_bytes()
    texts = families.texts(2000, contents) + families.wild(1000, contents)
    if family in families.COMPOSES:
        # llama.cpp does not compose characters. With nothing to compose, or composed before, it agrees.
        assert any(text != unicodedata.normalize("NFC", text) for text in texts)
        texts = [unicodedata.normalize("NFC", text) for text in texts]
    assert differences(tmp_path / family, path, texts) == []


@pytest.mark.parametrize(("family", "keeps_model"), SENTENCE_PIECE)
def test_sentence_piece(family, keeps_model, convert, tmp_path):
    """The name of the directory is in the file; llama.cpp knows Phi-3 by it."""
    contents = families.make_sentence_piece(tmp_path / family, family, keeps_model)
    path = convert(tmp_path / family)
    if keeps_model:
        theirs = gguf_oracle.convert(tmp_path / family, tmp_path / "theirs.gguf", "f32")
        assert path.read_bytes() == theirs.read_bytes()
    texts = families.texts(2000, contents) + families.wild(1000, contents)
    if family == "phi3":
        # Its special tokens take the spaces after them, of which llama.cpp knows those of ASCII.
        known = re.compile("(?:" + "|".join(map(re.escape, ["</s>", *contents])) + rf")[ \t-\r]*[{OTHER_SPACES}]")
        assert any(known.search(text) for text in texts)
        texts = [text for text in texts if not known.search(text)]
    assert differences(tmp_path / family, path, texts) == []


def test_difference_is_seen(convert, tmp_path):
    """The comparison has teeth: two tokenizers of one kind that learned from the same corpus."""
    for family in ("gpt2", "starcoder2"):
        families.make_byte_level(tmp_path / family, family)
    path = convert(tmp_path / "gpt2")
    texts = families.texts(200, [])
    assert differences(tmp_path / "gpt2", path, texts) == []
    assert differences(tmp_path / "starcoder2", path, texts) != []
