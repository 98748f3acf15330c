"""Rows of the largest that is accepted: headers, vocabularies and replicated layers. Nothing is a peer; each has a bound.

That the work grows in proportion shows here: of each with each, no row comes near its bound.
"""

import json
import pathlib
import struct

from measure import NIBBLE, Side, bounded, drop, run


def rows(folder: pathlib.Path) -> None:
    folder = folder / "limits"
    folder.mkdir()
    for megabytes, count, seconds in ((16, 150_000, 2), (100, 900_000, 10)):
        path = many_tensors(folder / "many.safetensors", count)
        timed(f"list a safetensors header of {megabytes} MB, {count:,} tensors", seconds, "inspect", path, "--json")
    path = many_names(folder / "names.gguf", 300_000)
    timed("list a GGUF header of 300,000 keys and as many tensors", 10, "inspect", path, "--json")
    path = many_strings(folder / "strings.gguf", 8_000_000)
    for words in (("inspect",), ("inspect", "--metadata"), ("verify",)):
        timed(f"{' '.join(words)}: an array of 8,000,000 strings", 10, *words, path)
    base, adapter = replicated(folder, 9_999)
    timed("plan a merge that makes 9,999 layers of one", 2, "merge", base, adapter, "-o", folder / "out", "--dry-run")
    drop(folder)


def timed(title: str, limit: float, *words) -> None:
    results = [run(NIBBLE, *words, "--quiet", output=True) for _ in range(3)]
    bounded(title, Side(f"nibble {words[0]}", [result.seconds for result in results], "s"), limit)


def safetensors(path: pathlib.Path, entries: dict, size: int) -> pathlib.Path:
    """The data is a hole."""
    header = json.dumps(entries, separators=(",", ":")).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size)
    return path


def many_tensors(path: pathlib.Path, count: int) -> pathlib.Path:
    return safetensors(path, {
        f"model.layers.{at // 24}.mlp.experts.{at % 24}.down_proj.weight":
            {"dtype": "U8", "shape": [1], "data_offsets": [at, at + 1]} for at in range(count)}, count)


def text(value: str) -> bytes:
    """A string of GGUF."""
    return struct.pack("<Q", len(value)) + value.encode()


def many_names(path: pathlib.Path, count: int) -> pathlib.Path:
    """With a long prefix in common, one byte for each key; tensors of no element."""
    prefix = "p" * 40
    pairs = b"".join(text(f"{prefix}{at}") + struct.pack("<IB", 0, 1) for at in range(count))
    tensors = b"".join(text(f"{prefix}{at}") + struct.pack("<IQIQ", 1, 0, 0, 0) for at in range(count))
    content = struct.pack("<4sIQQ", b"GGUF", 3, count, count) + pairs + tensors
    path.write_bytes(content + bytes(-len(content) % 32))
    return path


def many_strings(path: pathlib.Path, count: int) -> pathlib.Path:
    """Empty ones, which are eight zeros each: a hole."""
    header = struct.pack("<4sIQQ", b"GGUF", 3, 0, 2) + text("general.architecture") + struct.pack("<I", 8) + text("llama")
    header += text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, count)
    path.write_bytes(header)
    with open(path, "r+b") as file:
        file.truncate(len(header) + 8 * count)
    return path


def replicated(folder: pathlib.Path, count: int) -> tuple[pathlib.Path, pathlib.Path]:
    """A model of one layer, and an adapter that says it so many times and changes the last."""
    base, adapter = folder / "base", folder / "adapter"
    base.mkdir()
    adapter.mkdir()
    layer = "model.layers.0.self_attn.q_proj"
    safetensors(base / "model.safetensors", {
        f"{layer}.weight": {"dtype": "BF16", "shape": [32, 32], "data_offsets": [0, 2048]}}, 2048)
    (base / "config.json").write_text(json.dumps({"num_hidden_layers": 1}))
    last = f"base_model.model.{layer.replace('layers.0', f'layers.{count - 1}')}"
    safetensors(adapter / "adapter_model.safetensors", {
        f"{last}.lora_A.weight": {"dtype": "F32", "shape": [4, 32], "data_offsets": [0, 512]},
        f"{last}.lora_B.weight": {"dtype": "F32", "shape": [32, 4], "data_offsets": [512, 1024]}}, 1024)
    (adapter / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"],
        "layer_replication": [[0, 1]] * count}))
    return base, adapter
