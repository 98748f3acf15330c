"""config.json as Python's json writes it, bare Infinity and lone surrogates included, comes out of Nibble the same."""

import json
import math
import random

import numpy as np
import transformers
from safetensors.numpy import save_file

CHARACTERS = ["a", "é", "€", "😀", "\0", "\n", '"', "\\", "/", "\x7f", "\u2028", "\ud800", "\udbff", "\udc00", "\udfff"]


def text(generator: random.Random) -> str:
    return "".join(generator.choices(CHARACTERS, k=generator.randrange(6)))


def value(generator: random.Random, depth: int = 0):
    """Any value that json.dumps writes."""
    kind = generator.randrange(9 if depth < 4 else 7)
    if kind == 0:
        return generator.choice([None, True, False])
    if kind == 1:
        return generator.choice([math.inf, -math.inf, math.nan])
    if kind == 2:
        return generator.choice([0, -1, 2**63, -(10**40), generator.randrange(10**6)])
    if kind == 3:
        return generator.choice([0.0, -0.0, 1e-05, 1e22, 5e-324, generator.random()])
    if kind < 7:
        return text(generator)
    if kind == 7:
        return [value(generator, depth + 1) for _ in range(generator.randrange(5))]
    return {text(generator): value(generator, depth + 1) for _ in range(generator.randrange(5))}


def test_values(nibble, tmp_path):
    """The object that Python reads from both files is the same; a pair of surrogates is one character on both sides."""
    generator = random.Random(5)
    source = tmp_path / "source"
    source.mkdir()
    save_file({"model.norm.weight": np.ones(64, np.float32)}, source / "model.safetensors")
    config = {"dtype": "float32"} | {f"{number} {text(generator)}": value(generator) for number in range(400)}
    written = json.dumps(config, ensure_ascii=True)
    for word in ("Infinity", "-Infinity", "NaN", '\\ud800"'):
        assert word in written
    (source / "config.json").write_text(written)
    read = json.loads(written)
    nibble.json("convert", source, "-o", tmp_path / "out", "--dtype", "float16")
    nibble.verify(tmp_path / "out")
    again = json.loads((tmp_path / "out/config.json").read_text(encoding="utf-8"))
    assert again.pop("dtype", None) == "float16" and read.pop("dtype") == "float32"
    assert list(again) == list(read)
    for key, expected in read.items():
        assert json.dumps(again[key]) == json.dumps(expected), key


def test_mamba2(nibble, tmp_path):
    """Real Mamba2 configurations have an infinite time_step_limit; the quantized one is read as the source is."""
    config = transformers.Mamba2Config(
        hidden_size=64, num_heads=8, head_dim=16, state_size=16, n_groups=1, num_hidden_layers=1, vocab_size=96,
        time_step_limit=(0.0, math.inf),
    )  # fmt: skip
    transformers.Mamba2ForCausalLM(config).save_pretrained(tmp_path / "source")
    path = tmp_path / "source/config.json"
    saved = json.loads(path.read_text())
    path.write_text(json.dumps(saved | {"time_step_limit": [0.0, math.inf]}, indent=2))
    assert "Infinity" in path.read_text()
    nibble.quantize(tmp_path / "source", tmp_path / "out")
    nibble.verify(tmp_path / "out")
    read = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    assert tuple(read.time_step_limit) == (0.0, math.inf)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.config.time_step_limit[1] == math.inf
