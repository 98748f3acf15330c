"""What is run: sizes, folders, the training configurations, and how children and the tool are called.

Only the standard library: this runs before an interpreter with torch has been found.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.append(str(ROOT / "Tests/Bench"))

import models  # noqa: E402  (as plan.models elsewhere: it is found through the line above)

LIMIT = 24 << 30
RANK, ALPHA, TARGETS = 64, 32, "all-linear"
SEQUENCES = (512, 1024, 2048)
CHILD_SECONDS = 440


class StepFailed(Exception):
    """A part that did not do its work, in words for the table."""


class NotRun(Exception):
    """A part that cannot run here, and why."""


@dataclasses.dataclass(frozen=True)
class Configuration:
    """One row of the training table."""

    model: str  # bf16 or nf4
    sequence: int
    checkpointing: bool
    optimizer: str = "adamw"
    targets: str = TARGETS

    @property
    def name(self) -> str:
        parts = [self.model, str(self.sequence), "checkpointing" if self.checkpointing else "plain", self.optimizer]
        return "-".join(parts + ([] if self.targets == TARGETS else [self.targets.replace(",", "+")]))

    @property
    def strategy(self) -> str:
        """As `nibble fit` calls it."""
        if self.model == "bf16":
            return "lora-bf16"
        return "qlora-paged" if self.optimizer == "paged-adamw" else "qlora"


BF16 = [Configuration("bf16", SEQUENCES[0], True, targets=targets) for targets in (TARGETS, "q_proj,v_proj")]


def qlora(sequence: int) -> list[Configuration]:
    return [Configuration("nf4", sequence, checkpointing, optimizer)
            for checkpointing in (True, False) for optimizer in ("adamw", "paged-adamw")]


def nibble_path() -> pathlib.Path:
    """$NIBBLE, the one in the pack, or the one that was built."""
    places = [ROOT / "tool/nibble", ROOT / ".build/release/nibble"]
    if os.environ.get("NIBBLE"):
        places.insert(0, pathlib.Path(os.environ["NIBBLE"]))
    for place in places:
        if place.exists():
            return place.absolute()
    sys.exit("gpu-proof: no nibble; build it with `make`, or name it in NIBBLE")


def last_lines(text: str, count: int = 6) -> str:
    return " / ".join(line.strip() for line in text.strip().splitlines()[-count:])


def call(command: list, log: pathlib.Path, seconds: float = CHILD_SECONDS, environment=None) -> tuple[float, str]:
    """Wall time and standard output. All that it started ends with it when it takes too long."""
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with open(log, "w+") as errors:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.PIPE, stderr=errors, text=True, env=environment,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=seconds)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise StepFailed(f"{pathlib.Path(command[0]).name} took more than {seconds:.0f} s; its log: {log}") from None
            raise
        elapsed = time.perf_counter() - started
        if process.returncode:
            errors.seek(0)
            text = last_lines(errors.read()) or last_lines(output)
            raise StepFailed(f"exit code {process.returncode}: {text}")
    return elapsed, output


@dataclasses.dataclass
class Context:
    """What every step is given."""

    shape: models.Shape
    python: pathlib.Path
    nibble: pathlib.Path
    work: pathlib.Path
    card: dict | None
    repeats: int
    again: bool = False
    key: str = ""

    @property
    def is_whole(self) -> bool:
        """The 13B shape, about which the claims on 24 GiB are."""
        return self.shape == models.CODELLAMA_13B

    @property
    def base(self) -> str:
        shape = self.shape
        return f"llama-{shape.layers}x{shape.hidden}x{shape.intermediate}-{shape.heads}-{shape.vocabulary}"

    @property
    def source(self) -> pathlib.Path:
        return self.work / self.base

    @property
    def nf4(self) -> pathlib.Path:
        return self.work / f"{self.base}-nf4"

    @property
    def state(self) -> pathlib.Path:
        """Of what was found with this tool, card and interpreter; another of them starts anew."""
        return self.work / f"state-{self.key}"

    @property
    def place(self) -> str:
        return "cuda" if self.card else "cpu"

    def set_key(self, *parts) -> None:
        digest = hashlib.sha256(self.nibble.read_bytes())
        digest.update(json.dumps([self.base, self.card, self.repeats, *parts], sort_keys=True).encode())
        self.key = digest.hexdigest()[:12]

    def tool(self, verb: str, *arguments, seconds: float = CHILD_SECONDS) -> tuple[float, dict]:
        """Seconds and the object that --json prints."""
        command = [self.nibble, verb, *arguments, "--json", "--quiet"]
        elapsed, output = call(command, self.state / f"{verb}.log", seconds)
        return elapsed, json.loads(output)

    def child(self, script: str, name: str, task: dict) -> dict:
        """What the child found; found once, it is kept."""
        folder = self.state / "children"
        folder.mkdir(parents=True, exist_ok=True)
        asked, found = folder / f"{name}.task.json", folder / f"{name}.json"
        if found.exists() and not self.again:
            return json.loads(found.read_text())
        found.unlink(missing_ok=True)
        asked.write_text(json.dumps(task))
        part = found.with_suffix(".part")
        environment = dict(os.environ)
        if self.card:
            environment.setdefault("CUDA_VISIBLE_DEVICES", "0")
        call([self.python, HERE / script, asked, part], self.state / f"{name}.log", environment=environment)
        part.rename(found)
        return json.loads(found.read_text())
