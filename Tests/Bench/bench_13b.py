"""A 13B model for real: made, quantized, verified, merged with an adapter, timed. Run by `make bench-13b`.

BENCH_DIR    where the model and the result lie (default: the cache folder)
DTYPE        bfloat16 (default) or float16
LAYERS       40 (default); fewer to try it small
"""

import dataclasses
import json
import os
import pathlib
import shutil
import sys
import time

import models
from measure import NIBBLE, cat, drop, run, size

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "Interop"))
from environment import cache

GB = 1e9


def packed_bits(folder: pathlib.Path, shape: models.Shape) -> float:
    """Bits per quantized parameter: codes and statistics, file headers left out."""
    listing = json.loads(run(NIBBLE, "inspect", folder, "--json", output=True).output)
    quantized = [row for row in listing["tensors"] if row["scheme"]]
    return 8 * sum(row["bytes"] for row in quantized) / shape.quantized_parameters


def main() -> None:
    dtype, layers = os.environ.get("DTYPE", "bfloat16"), int(os.environ.get("LAYERS", "40"))
    if dtype not in ("bfloat16", "float16"):
        sys.exit(f"bench-13b: DTYPE is bfloat16 or float16, not {dtype}")
    shape = dataclasses.replace(models.CODELLAMA_13B, layers=layers, dtype=dtype)
    base = pathlib.Path(os.environ.get("BENCH_DIR") or cache()).absolute()
    base.mkdir(parents=True, exist_ok=True)
    source, out = base / f"codellama-{layers}-layers-{dtype}", base / f"codellama-{layers}-layers-{dtype}-nf4"
    merged = base / f"codellama-{layers}-layers-{dtype}-merged"
    drop(out)
    drop(merged)

    there = size(source) if source.exists() else 0
    needed = max(0, 2 * shape.parameters - there) + int(1.3 * 2 * shape.parameters) + (3 << 30)
    free = shutil.disk_usage(base).free
    if free < needed:
        sys.exit(f"bench-13b: {base} has {free / GB:.1f} GB free, {needed / GB:.1f} GB are needed; set BENCH_DIR")

    started = time.perf_counter()
    models.ensure(shape, source)
    made = time.perf_counter() - started
    print(f"model: {shape.parameters / 1e9:.2f} G parameters, {dtype}, {size(source) / GB:.2f} GB, "
          f"{len(list(source.glob('*.safetensors')))} files (made or found in {made:.0f} s)", flush=True)

    # cat before and after, because a disk's speed and the page cache change while one looks.
    before = cat(source)
    quantized = run(NIBBLE, "quantize", source, "-o", out)
    after = cat(source)
    verified = run(NIBBLE, "verify", out)
    read_back = cat(out)
    # What writing as many bytes takes on this disk.
    copied = run("sh", "-c", f"cp -r '{source}' '{merged}' && sync '{merged}'/*")
    drop(merged)
    adapter = models.ensure_adapter(shape, base / f"codellama-{layers}-layers-adapter")
    plain = run(NIBBLE, "merge", source, adapter, "-o", merged, "--quiet")
    merged_size = size(merged) / GB
    drop(merged)
    packed = run(NIBBLE, "merge", source, adapter, "-o", merged, "--quiet", "--scheme", "nf4")
    packed_size = size(merged) / GB
    drop(merged)
    onto_four = run(NIBBLE, "merge", out, adapter, "-o", merged, "--quiet")
    drop(merged)
    read = size(source) / GB
    written = size(out) / GB
    reading = (before + after) / 2
    rows = [
        ("quantize", f"{quantized.seconds:.1f} s, {read / quantized.seconds:.2f} GB/s of input"),
        ("cat of the same files", f"{before:.1f} s before, {after:.1f} s after, {read / reading:.2f} GB/s"),
        ("ratio to cat", f"{quantized.seconds / reading:.2f} times its time"),
        ("peak resident memory", f"{quantized.peak / (1 << 20):.0f} MiB"),
        ("output", f"{written:.2f} GB, {packed_bits(out, shape):.3f} bits per quantized parameter"),
        ("verify", f"{verified.seconds:.1f} s, {written / verified.seconds:.2f} GB/s, "
                   f"{verified.peak / (1 << 20):.0f} MiB resident"),
        ("cat of the output", f"{read_back:.1f} s, {written / read_back:.2f} GB/s"),
        ("cp and sync of the model", f"{copied.seconds:.1f} s"),
        ("merge, rank 64", f"{plain.seconds:.1f} s, {merged_size:.2f} GB written, {plain.peak / (1 << 20):.0f} MiB resident"),
        ("merge --scheme nf4", f"{packed.seconds:.1f} s, {packed_size:.2f} GB written, "
                               f"{packed.peak / (1 << 20):.0f} MiB resident"),
        ("merge onto the NF4", f"{onto_four.seconds:.1f} s, {merged_size:.2f} GB written, "
                               f"{onto_four.peak / (1 << 20):.0f} MiB resident"),
    ]
    for name, text in rows:
        print(f"{name:24}{text}")


if __name__ == "__main__":
    main()
