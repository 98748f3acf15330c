"""GGUF rows: against llama.cpp's converter and llama-quantize, each one ratio measured in one run."""

import filecmp
import pathlib
import shutil
import sys
import tempfile

import llama_tools
import models
from measure import NIBBLE, ROOT, Side, compare, drop, interleave, run, size

sys.path.insert(0, str(ROOT / "Tests/Interop"))
import gguf_oracle

MIB = 1 << 20
TOKENIZER = ROOT / "fixtures/sql-llama"

# Scheme, and how many times faster than llama-quantize it has to be.
SCHEMES = [("q4_0", 3), ("q8_0", 3), ("q4_k_m", 5), ("q6_k", None), ("q5_k_m", None), ("iq4_xs", None)]


def rows(folder: pathlib.Path) -> None:
    shape = models.LLAMA_437M
    source = models.ensure(shape, folder / "source-gguf")
    for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, source)
    plain = folder / "plain.gguf"
    print(f"GGUF: {shape.parameters / 1e6:.0f} M parameters, {size(source) / 1e9:.2f} GB")
    converting(source, plain, folder)
    if tool := llama_tools.llama_quantize():
        for scheme, required in SCHEMES:
            quantizing(tool, source, plain, folder, scheme, required)
    drop(source)
    drop(plain)


def converting(source: pathlib.Path, plain: pathlib.Path, folder: pathlib.Path) -> None:
    theirs_out = folder / "theirs.gguf"
    converter = gguf_oracle.converter() / "convert_hf_to_gguf.py"

    def mine():
        remove(plain)
        return run(NIBBLE, "convert", source, "-o", plain, "--quiet")

    def theirs():
        theirs_out.unlink(missing_ok=True)
        return run(sys.executable, converter, source, "--outfile", theirs_out, "--outtype", "bf16", quiet=True)

    ours, peers, copies = interleave(3, mine, theirs, lambda: run("cp", plain, folder / "copy"))
    compare(
        "safetensors to bf16 GGUF, the whole process on both sides",
        Side("nibble convert", [result.seconds for result in ours], "s"),
        Side("convert_hf_to_gguf.py", [result.seconds for result in peers], "s"),
        "10", lambda ratio: ratio >= 10)
    compare(
        "its peak resident memory",
        Side("nibble convert", [result.peak / MIB for result in ours], "MiB"),
        Side("convert_hf_to_gguf.py", [result.peak / MIB for result in peers], "MiB"),
        "at most 256 MiB", lambda _: max(result.peak for result in ours) <= 256 * MIB)
    compare(
        "the same, against a copy of its output", Side("nibble convert", [result.seconds for result in ours], "s"),
        Side("cp", [result.seconds for result in copies], "s"), "none, for comparison", None)
    drop(theirs_out)
    drop(folder / "copy")


def quantizing(
    tool: str, source: pathlib.Path, plain: pathlib.Path, folder: pathlib.Path, scheme: str, required: int | None
) -> None:
    """From the same bf16 GGUF file; and in one step from safetensors, which llama.cpp cannot do."""
    out, theirs_out = folder / "out.gguf", folder / "theirs.gguf"

    def mine(given: pathlib.Path):
        remove(out)
        return run(NIBBLE, "quantize", given, "-o", out, "--scheme", scheme, "--quiet")

    def theirs():
        theirs_out.unlink(missing_ok=True)
        return run(tool, plain, theirs_out, scheme.upper(), quiet=True)

    ours, direct, peers = interleave(3, lambda: mine(plain), lambda: mine(source), theirs)
    mine(plain)
    same = filecmp.cmp(out, theirs_out, shallow=False)
    compare(
        f"bf16 GGUF to {scheme.upper()}, the whole process on both sides; the files are "
        + ("the same byte for byte" if same else "NOT the same"),
        Side("nibble quantize", [result.seconds for result in ours], "s"),
        Side("llama-quantize", [result.seconds for result in peers], "s"),
        str(required) if required else "none, for comparison", (lambda ratio: ratio >= required) if required else None)
    compare(
        "its peak resident memory",
        Side("nibble quantize", [result.peak / MIB for result in ours], "MiB"),
        Side("llama-quantize", [result.peak / MIB for result in peers], "MiB"),
        "no larger", lambda ratio: ratio <= 1)
    compare(
        "in one step from safetensors", Side("nibble quantize", [result.seconds for result in direct], "s"),
        Side("nibble quantize, from GGUF", [result.seconds for result in ours], "s"), "none, for comparison", None)
    drop(out)
    drop(theirs_out)


def remove(model: pathlib.Path) -> None:
    """With its manifest; before the clock starts, on both sides."""
    model.unlink(missing_ok=True)
    model.with_name(model.name + ".nibble-manifest.json").unlink(missing_ok=True)


def main() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None) as folder:
        rows(pathlib.Path(folder))


if __name__ == "__main__":
    main()
