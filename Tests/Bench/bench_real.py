"""Rows of a model that somebody trained and published: SmolLM2-135M-Instruct, which comes in Q4_1."""

import pathlib
import sys

import llama_tools
from bench_gguf import remove
from measure import NIBBLE, ROOT, Side, compare, drop, interleave, run

sys.path.insert(0, str(ROOT / "Tests/Interop"))
import gguf_oracle
import real_models


def copied(source: pathlib.Path, out: pathlib.Path) -> float:
    drop(out)
    return run("cp", "-r", source, out).seconds


def rows(folder: pathlib.Path) -> None:
    model, plain, out, theirs_out = real_models.smollm2(), folder / "real", folder / "real.gguf", folder / "theirs.gguf"
    print("SmolLM2-135M-Instruct, Q4_1", flush=True)

    def directory():
        drop(plain)
        return run(NIBBLE, "convert", model, "-o", plain, "--dtype", "bfloat16", "--quiet").seconds

    def file():
        remove(out)
        return run(NIBBLE, "convert", plain, "-o", out, "--quiet").seconds

    def nf4():
        drop(folder / "nf4")
        return run(NIBBLE, "quantize", plain, "-o", folder / "nf4", "--quiet").seconds

    mine, copies = interleave(5, directory, lambda: copied(plain, folder / "copy"))
    compare("GGUF to a directory in bf16, against a copy of its output",
            Side("nibble convert", mine, "s"), Side("cp", copies, "s"), "none, for comparison", None)
    drop(folder / "copy")
    converter = gguf_oracle.converter() / "convert_hf_to_gguf.py"
    mine, theirs = interleave(3, file, lambda: run(
        sys.executable, converter, plain, "--outfile", theirs_out, "--outtype", "bf16", quiet=True).seconds)
    compare("the directory to GGUF in bf16, the whole process on both sides",
            Side("nibble convert", mine, "s"), Side("convert_hf_to_gguf.py", theirs, "s"), "10", lambda ratio: ratio >= 10)
    if tool := llama_tools.llama_quantize():
        def quantize():
            remove(folder / "q.gguf")
            return run(NIBBLE, "quantize", out, "-o", folder / "q.gguf", "--scheme", "q4_k_m", "--quiet").seconds

        mine, theirs = interleave(3, quantize, lambda: run(tool, out, theirs_out, "Q4_K_M", quiet=True).seconds)
        compare("bf16 GGUF to Q4_K_M", Side("nibble quantize", mine, "s"), Side("llama-quantize", theirs, "s"), "5",
                lambda ratio: ratio >= 5)
        remove(folder / "q.gguf")
    mine, copies = interleave(5, nf4, lambda: copied(folder / "nf4", folder / "copy"))
    compare("the directory to NF4, against a copy of its output",
            Side("nibble quantize", mine, "s"), Side("cp", copies, "s"), "none, for comparison", None)
    for path in (plain, folder / "nf4", folder / "copy"):
        drop(path)
    for path in (out, theirs_out):
        remove(path)
