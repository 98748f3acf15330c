"""Timing of child processes, and the table that the benchmarks print.

Nothing large is imported here: a child's maximum RSS starts from that of the process it was forked from,
so whoever measures must have been small all its life.
"""

import dataclasses
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
NIBBLE = os.environ.get("NIBBLE") or str(ROOT / ".build/release/nibble")
RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclasses.dataclass
class Run:
    seconds: float
    peak: int  # bytes, maximum RSS of the process, mapped pages included
    output: bytes


def run(*command, output: bool = False, quiet: bool = False) -> Run:
    """Wall time from start to end of the process; a failure ends the benchmark."""
    started = time.perf_counter()
    target = subprocess.PIPE if output else subprocess.DEVNULL
    process = subprocess.Popen([str(part) for part in command], stdout=target, stderr=subprocess.DEVNULL if quiet else None)
    text = process.stdout.read() if output else b""
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"exit code {process.returncode}: {' '.join(map(str, command))}")
    return Run(seconds, usage.ru_maxrss * RSS_UNIT, text)


def cat(folder: pathlib.Path) -> float:
    """Seconds to read all shards of a folder."""
    files = sorted(map(str, folder.glob("*.safetensors")))
    return run("cat", *files).seconds


def drop(folder: pathlib.Path) -> None:
    """Removes a folder; its removal is not part of any measurement."""
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def size(folder: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@dataclasses.dataclass
class Side:
    """One side of a comparison: its measurements, larger is better unless they are seconds."""

    name: str
    values: list[float]
    unit: str

    def text(self) -> str:
        middle, low, high = statistics.median(self.values), min(self.values), max(self.values)
        return f"{self.name} {middle:.4g} ({low:.4g} to {high:.4g}) {self.unit}"


def compare(title: str, mine: Side, theirs: Side, required: str, meets) -> None:
    """Prints one row; `meets` judges the ratio, which is how many times better Nibble is."""
    ratio = statistics.median(mine.values) / statistics.median(theirs.values)
    if mine.unit in ("s", "ms"):
        ratio = 1 / ratio
    verdict = "" if meets is None else ("reached" if meets(ratio) else "NOT REACHED")
    print(f"{title}\n  {mine.text()}\n  {theirs.text()}\n  ratio {ratio:.3g}, required {required}  {verdict}", flush=True)


def bounded(title: str, mine: Side, limit: float) -> None:
    """Prints a row that has no peer: its median must not be above a limit, in the side's unit."""
    verdict = "reached" if statistics.median(mine.values) <= limit else "NOT REACHED"
    print(f"{title}\n  {mine.text()}\n  required at most {limit} {mine.unit}  {verdict}", flush=True)


def interleave(rounds: int, *sides) -> list[list]:
    """A B A B …, after one round that does not count; a list of results for each side."""
    for side in sides:
        side()
    results = [[] for _ in sides]
    for _ in range(rounds):
        for side, collected in zip(sides, results):
            collected.append(side())
    return results
