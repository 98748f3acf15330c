"""Nibble against its peers, each row one ratio measured in one run. Run by `make bench`.

Both sides read and write the same tmpfs, and take turns. Figures are medians, with minimum and maximum.
"""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import bench_gguf
import bench_limits
import bench_real
import bench_vocabulary
import models
from measure import NIBBLE, Side, cat, compare, drop, interleave, run, size

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "Interop"))
from environment import cache

MIB = 1 << 20


class Peer:
    """peer.py answering; it holds its tensors between questions."""

    def __init__(self, folder: pathlib.Path, role: str = "serve"):
        command = [sys.executable, str(HERE / "peer.py"), role, str(folder)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def ask(self, question: str) -> float:
        print(question, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


@contextlib.contextmanager
def workplace():
    """A folder in memory, or on the disk with a note when there is no room."""
    memory = pathlib.Path("/dev/shm")
    if memory.is_dir() and shutil.disk_usage(memory).free > 5 << 30:
        parent = memory
    else:
        parent = cache()
        print("note: no tmpfs with 5 GiB free; both sides write to the disk, which hides differences")
    with tempfile.TemporaryDirectory(dir=parent, prefix="nibble-bench-") as folder:
        yield pathlib.Path(folder)


def quantize(source: pathlib.Path, out: pathlib.Path):
    drop(out)
    return run(NIBBLE, "quantize", source, "-o", out, "--quiet")


def convert(source: pathlib.Path, out: pathlib.Path):
    drop(out)
    return run(NIBBLE, "convert", source, "-o", out, "--dtype", "bfloat16", "--quiet")


def copy(source: pathlib.Path, out: pathlib.Path, synced: bool = False) -> float:
    drop(out)
    command = f"cp -r '{source}' '{out}'" + (f" && sync '{out}'/*" if synced else "")
    return run("sh", "-c", command).seconds


def kernels(peer: Peer, source: pathlib.Path, shape: models.Shape, folder: pathlib.Path) -> None:
    """File to checksummed file here, in memory there."""
    four, plain = folder / "four", folder / "plain"
    mine, theirs = interleave(5, lambda: quantize(source, four), lambda: peer.ask("quantize"))
    rates = [shape.quantized_parameters / result.seconds / 1e6 for result in mine]
    compare(
        "bf16 to NF4 with double quantization: file to checksummed shards, and in memory",
        Side("nibble quantize", rates, "M weights/s"),
        Side("bitsandbytes quantize_4bit", [rate / 1e6 for rate in theirs], "M weights/s"),
        "20", lambda ratio: ratio >= 20)

    mine, theirs, copies = interleave(
        5, lambda: convert(four, plain), lambda: peer.ask("dequantize"), lambda: copy(plain, folder / "copy"))
    rates = [shape.quantized_parameters / result.seconds / 1e6 for result in mine]
    compare(
        "NF4 to bf16: file to checksummed shards, and in memory",
        Side("nibble convert", rates, "M weights/s"),
        Side("bitsandbytes dequantize_4bit", [rate / 1e6 for rate in theirs], "M weights/s"),
        "1 in the kernel (this is file to file)", None)
    compare(
        "NF4 to bf16, against a copy of its output",
        Side("nibble convert", [result.seconds for result in mine], "s"), Side("cp", copies, "s"),
        "bound by memory copy", None)
    drop(folder / "copy")
    drop(plain)


def eight_bits(source: pathlib.Path, folder: pathlib.Path) -> None:
    """Codes of 8 bits, a scale for each 128 x 128 of them, back to 16 bits."""
    codes, plain = folder / "codes", folder / "plain"
    run(NIBBLE, "quantize", source, "-o", codes, "--scheme", "fp8-block", "--quiet")
    mine, copies = interleave(9, lambda: convert(codes, plain), lambda: copy(plain, folder / "copy"))
    compare(
        "FP8 to bf16, against a copy of its output",
        Side("nibble convert", [result.seconds for result in mine], "s"), Side("cp", copies, "s"),
        "0.9", lambda ratio: ratio >= 0.9)
    for each in (codes, plain, folder / "copy"):
        drop(each)


def whole_job(source: pathlib.Path, folder: pathlib.Path) -> None:
    four, theirs_out = folder / "four", folder / "theirs"

    def stock():
        drop(theirs_out)
        return run(sys.executable, HERE / "peer.py", "whole", source, theirs_out, output=True)

    mine, theirs = interleave(3, lambda: quantize(source, four), stock)
    compare(
        "the whole job, 536 M parameters (the libraries' import is not counted)",
        Side("nibble quantize", [result.seconds for result in mine], "s"),
        Side("transformers + bitsandbytes", [float(result.output) for result in theirs], "s"),
        "15", lambda ratio: ratio >= 15)
    compare(
        "its peak resident memory",
        Side("nibble quantize", [result.peak / MIB for result in mine], "MiB"),
        Side("transformers + bitsandbytes", [result.peak / MIB for result in theirs], "MiB"),
        "at most 256 MiB", lambda _: max(result.peak for result in mine) <= 256 * MIB)
    drop(theirs_out)


def merging(source: pathlib.Path, shape: models.Shape, folder: pathlib.Path) -> None:
    """A rank-64 adapter on all linear layers, written as 16-bit, and quantized on the way."""
    adapter = models.ensure_adapter(shape, folder / "adapter")
    out, theirs_out = folder / "merged", folder / "theirs"

    def mine(*options):
        drop(out)
        return run(NIBBLE, "merge", source, adapter, "-o", out, "--quiet", *options)

    def stock():
        drop(theirs_out)
        return run(sys.executable, HERE / "peer.py", "merge", source, adapter, theirs_out, output=True)

    merged, quantized, theirs, copies = interleave(
        3, mine, lambda: mine("--scheme", "nf4"), stock, lambda: copy(source, folder / "copy"))
    compare(
        "merge a rank-64 adapter, 536 M parameters, the whole process on both sides",
        Side("nibble merge", [result.seconds for result in merged], "s"),
        Side("PEFT, load, merge and save", [result.seconds for result in theirs], "s"),
        "8", lambda ratio: ratio >= 8)
    compare(
        "the same, the libraries' import not counted",
        Side("nibble merge", [result.seconds for result in merged], "s"),
        Side("PEFT, load, merge and save", [float(result.output) for result in theirs], "s"),
        "none, for comparison", None)
    compare(
        "its peak resident memory",
        Side("nibble merge", [result.peak / MIB for result in merged], "MiB"),
        Side("PEFT", [result.peak / MIB for result in theirs], "MiB"),
        "at most 400 MiB", lambda _: max(result.peak for result in merged) <= 400 * MIB)
    compare(
        "merge, against a copy of the base",
        Side("nibble merge", [result.seconds for result in merged], "s"), Side("cp", copies, "s"),
        "none, for comparison", None)
    compare(
        "merge and quantize in one pass, against the merge alone",
        Side("nibble merge --scheme nf4", [result.seconds for result in quantized], "s"),
        Side("nibble merge", [result.seconds for result in merged], "s"),
        "none, for comparison", None)
    for each in (out, theirs_out, folder / "copy"):
        drop(each)


def reading(folder: pathlib.Path) -> None:
    four, listed = folder / "four", folder / "listed"
    models.ensure(models.CODELLAMA_13B, listed, sparse=True)
    mine, theirs = interleave(
        9, lambda: run(NIBBLE, "inspect", listed, "--json").seconds * 1e3,
        lambda: run(sys.executable, HERE / "peer.py", "list", listed).seconds * 1e3)
    compare(
        "list a 13B checkpoint, the whole process on both sides",
        Side("nibble inspect", mine, "ms"), Side("Python, safe_open", theirs, "ms"),
        "at most 10 ms", lambda _: sorted(mine)[len(mine) // 2] <= 10)
    drop(listed)

    files = size(four) / 1e9
    mine, theirs = interleave(
        5, lambda: files / run(NIBBLE, "verify", four, "--quiet").seconds, lambda: files / cat(four))
    compare(
        "verify, against cat of the same files", Side("nibble verify", mine, "GB/s"), Side("cat", theirs, "GB/s"),
        "0.8", lambda ratio: ratio >= 0.8)


def loading(folder: pathlib.Path) -> None:
    peer = Peer(folder / "four", "load")
    rounds = [[peer.ask(way) for way in ("nibble", "from_pretrained", "unchecked")] for _ in range(11)]
    peer.close()
    mine, theirs, unchecked = map(list, zip(*rounds))
    compare(
        "load the 4-bit model onto the CPU and read every weight once, digests checked",
        Side("nibble.load", mine, "s"), Side("from_pretrained", theirs, "s"),
        "no slower", lambda ratio: ratio >= 0.95)
    compare(
        "the same, digests not checked", Side("nibble.load", unchecked, "s"), Side("from_pretrained", theirs, "s"),
        "none, for comparison", None)


def disk(source: pathlib.Path, folder: pathlib.Path) -> None:
    """Reading from memory, writing to the disk of the cache, everything synchronized."""
    with tempfile.TemporaryDirectory(dir=cache(), prefix="bench-") as name:
        out, copied = pathlib.Path(name) / "four", pathlib.Path(name) / "copy"
        mine, theirs = interleave(
            3, lambda: quantize(source, out).seconds, lambda: copy(folder / "four", copied, synced=True))
        compare(
            "the whole job onto the disk, against cp and sync of its output",
            Side("nibble quantize", mine, "s"), Side("cp, sync", theirs, "s"), "none, for comparison", None)


def main() -> None:
    cache().mkdir(parents=True, exist_ok=True)
    shape = models.LLAMA_536M
    with workplace() as folder:
        source = models.ensure(shape, folder / "source")
        print(f"{shape.parameters / 1e6:.0f} M parameters, {size(source) / 1e9:.2f} GB, {os.cpu_count()} cores, "
              f"{run(NIBBLE, '--version', output=True).output.decode().splitlines()[0]}", flush=True)
        peer = Peer(source)
        kernels(peer, source, shape, folder)
        peer.close()
        eight_bits(source, folder)
        reading(folder)
        loading(folder)
        whole_job(source, folder)
        merging(source, shape, folder)
        disk(source, folder)
        drop(source)
        bench_gguf.rows(folder)
        bench_limits.rows(folder)
        bench_vocabulary.rows(folder)
        bench_real.rows(folder)


if __name__ == "__main__":
    main()
