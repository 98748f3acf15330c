"""The encoders of ggml's K-quants against ggml's own, in one thread: million values per second, and the ratio.

Each takes turns with the other; figures are medians. Needs xllamacpp, and a C++ compiler.
"""

import pathlib
import statistics
import sys
import tempfile
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "Interop"))
import kquants

ROWS, COLUMNS, ROUNDS = 64, 4096, 5


def seconds(encode, *arguments) -> float:
    started = time.perf_counter()
    encode(*arguments)
    return time.perf_counter() - started


def main():
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((ROWS, COLUMNS)) * 0.02).astype(np.float32)
    importance = rng.random(COLUMNS).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        encoders = kquants.Encoders(pathlib.Path(folder))
        for name in kquants.TYPES:
            for label, weights in (("plain", None), ("weighted", importance)):
                sides = encoders.ours, encoders.theirs
                times = [[seconds(side, name, values, weights) for side in sides] for _ in range(ROUNDS)]
                ours, theirs = (statistics.median(column) for column in zip(*times))
                print(
                    f"{name:7} {label:9} {values.size / ours / 1e6:6.1f} M/s, "
                    f"ggml {values.size / theirs / 1e6:6.1f} M/s, {theirs / ours:5.1f} times"
                )


main()
