"""Vocabularies of a quarter of a million tokens: what is written takes time in proportion to its length."""

import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

from measure import NIBBLE, ROOT, Side, compare, drop, interleave, run

sys.path.insert(0, str(ROOT / "Tests/Interop"))
import gguf_oracle
from environment import cache

TOKENS = 262_144
# Of those that llama.cpp brings along: 256,000 tokens and 253,333 merges; and the largest of all.
STORED = ("command-r", "gemma-4")


def stored(name: str) -> pathlib.Path:
    """A vocabulary of llama.cpp, kept in the cache."""
    path = cache() / f"ggml-vocab-{name}-{gguf_oracle.VERSION}.gguf"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=cache()) as folder:
            models = gguf_oracle.source(pathlib.Path(folder)) / "models"
            for each in STORED:
                shutil.move(models / f"ggml-vocab-{each}.gguf", cache() / f"ggml-vocab-{each}-{gguf_oracle.VERSION}.gguf")
    return path


def rows(folder: pathlib.Path) -> None:
    for name in STORED:
        file = stored(name)
        ours, copies = interleave(
            3, lambda: run(NIBBLE, "inspect", "--metadata", "--json", file, output=True),
            lambda: run("cat", file, output=True))
        within(f"inspect --metadata --json of {name}'s vocabulary", ours, Side("cat", seconds(copies), "s"), 1.0)
    # In a process of its own, which may grow.
    subprocess.run([sys.executable, pathlib.Path(__file__).with_name("vocabulary.py"), folder, str(TOKENS)], check=True)
    out = folder / "converted"

    def convert():
        drop(out)
        return run(NIBBLE, "convert", folder / "model.gguf", "-o", out, "--quiet", output=True)

    ours, copies = interleave(3, convert, lambda: run("cp", "-r", out, folder / "copy"))
    within(f"Gemma 3 270M with {TOKENS} tokens, Q4_K_M GGUF to directory", ours, Side("cp", seconds(copies), "s"), 1.5)
    for path in (out, folder / "copy", folder / "gemma3", folder / "model.gguf"):
        drop(path)


def seconds(results: list) -> list[float]:
    return [result.seconds for result in results]


def within(title: str, ours: list, peer: Side, limit: float) -> None:
    median = statistics.median(seconds(ours))
    compare(title, Side("nibble", seconds(ours), "s"), peer, f"at most {limit} s", lambda _: median <= limit)


def main() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None) as folder:
        rows(pathlib.Path(folder))


if __name__ == "__main__":
    main()
