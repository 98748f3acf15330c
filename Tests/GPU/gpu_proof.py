"""Does a 13B model train on 24 GiB? Measured on one NVIDIA card; what needs none runs on the processor, small.

Every step's figures are kept in the work folder, so that steps can be run one after the other, by name. At the end,
and after every call, one page is made of all figures there are. Exit code 1 when a claim or a step failed.
"""

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import signal
import subprocess
import sys
import traceback

import claims
import driver
import interpreter
import plan
import steps
import table


def options(names: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gpu-proof", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="PYTHON names an interpreter with PyTorch for CUDA; without it one is made from carried wheels. "
               "NIBBLE names the tool, OUT the results' folder. Steps: " + ", ".join(names) + ".")
    parser.add_argument("--steps", metavar="NAMES", help="only these, with commas between; `train` means all train-…")
    parser.add_argument("--again", action="store_true", help="run steps that are done once more")
    parser.add_argument("--layers", type=int, help="40 on a card, 2 without one; fewer to try it small")
    shape = plan.models.CODELLAMA_13B
    for name in ("hidden", "intermediate", "heads", "vocabulary"):
        parser.add_argument(f"--{name}", type=int, default=getattr(shape, name), help="default: %(default)s")
    parser.add_argument("--repeats", type=int, help="of each loading: 3 on a card, 1 without one")
    parser.add_argument("--work", type=pathlib.Path, help="models and state, 34 GB at full size, 39 GB with wheels "
                        "installed (default: $GPU_PROOF_WORK, or ./gpu-proof-work)")
    parser.add_argument("--out", type=pathlib.Path, help="the results' folder (default: $OUT, or ./gpu-proof-results)")
    return parser.parse_args()


def chosen(text: str | None, names: list[str]) -> list[str]:
    if text is None:
        return names
    found = []
    for part in filter(None, text.split(",")):
        group = [name for name in names if name == part or name.startswith(part + "-")]
        if not group:
            print(f"gpu-proof: no step {part}; there are {', '.join(names)}", file=sys.stderr)
            sys.exit(2)
        found += group
    return [name for name in names if name in found]


def now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def state_path(context: plan.Context, name: str) -> pathlib.Path:
    return context.state / f"{name}.json"


def stored(context: plan.Context, name: str) -> dict | None:
    path = state_path(context, name)
    return json.loads(path.read_text()) if path.exists() else None


def is_complete(state: dict | None) -> bool:
    """Rows that failed are tried again by the next call."""
    return bool(state) and state["status"] == "done" and all(
        row.get("outcome") != "failed" for row in state["figures"].get("rows", []))


def run_step(context: plan.Context, name: str, step) -> None:
    if not context.again and is_complete(stored(context, name)):
        print(f"gpu-proof: {name}: done before", flush=True)
        return
    print(f"gpu-proof: {name}", flush=True)
    state = {"started": now()}
    try:
        state |= {"status": "done", "figures": step(context)}
    except plan.NotRun as reason:
        state |= {"status": "not run", "reason": str(reason)}
    except plan.StepFailed as reason:
        state |= {"status": "failed", "reason": str(reason)}
    except Exception as error:
        # What nobody thought of ends its step, not the steps after it.
        traceback.print_exc()
        state |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
    state["finished"] = now()
    if state["status"] != "done":
        print(f"gpu-proof: {name}: {state['status']}: {state['reason']}", flush=True)
    context.state.mkdir(parents=True, exist_ok=True)
    part = state_path(context, name).with_suffix(".part")
    part.write_text(json.dumps(state, indent=2))
    part.rename(state_path(context, name))


def collect(context: plan.Context, every: dict, found: interpreter.Interpreter) -> dict:
    states = {}
    for name, step in every.items():
        reason = "no NVIDIA card" if step is None else "not asked for yet"
        states[name] = stored(context, name) or {"status": "not run", "reason": reason}
    times = [state[key] for state in states.values() for key in ("started", "finished") if key in state] or [now()]
    version = subprocess.run([str(context.nibble), "--version"], capture_output=True, text=True).stdout.split("\n")[0]
    shape = dataclasses.asdict(context.shape)
    return {
        "first": min(times), "last": max(times),
        "machine": {
            "card": context.card, "processors": os.cpu_count(),
            "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "versions": found.versions,
            "python": found.python, "cuda": found.cuda, "nibble": version,
        },
        "settings": shape | {"whole": context.is_whole, "limit": plan.LIMIT, "rank": plan.RANK, "alpha": plan.ALPHA,
                             "sequences": list(plan.SEQUENCES), "repeats": context.repeats},
        "steps": states,
    }


def write(report: dict, out: pathlib.Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    name = "gpu-proof-" + report["last"][:10]
    (out / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    text = table.markdown(report)
    (out / f"{name}.md").write_text(text)
    print(f"\n{text}\ngpu-proof: written to {out / name}.md and .json", flush=True)


def main() -> int:
    # Whoever stops this stops its children too, by the way out that an error takes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # One card, though there be several: whoever starts this says which.
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    card = driver.describe()
    every = steps.all_steps(bool(card))
    given = options(list(every))
    names = chosen(given.steps, list(every))
    work = (given.work or pathlib.Path(os.environ.get("GPU_PROOF_WORK") or "gpu-proof-work")).absolute()
    out = (given.out or pathlib.Path(os.environ.get("OUT") or "gpu-proof-results")).absolute()
    shape = dataclasses.replace(
        plan.models.CODELLAMA_13B, layers=given.layers or (40 if card else 2), hidden=given.hidden, heads=given.heads,
        intermediate=given.intermediate, vocabulary=given.vocabulary)
    nibble = plan.nibble_path()
    found = interpreter.find(work, bool(card))
    repeats = given.repeats or (3 if card else 1)
    context = plan.Context(shape, found.path, nibble, work, card, repeats, given.again)
    context.set_key(found.versions, found.cuda)
    where = f"{card['name']}, driver {card['driver']}" if card else "no NVIDIA card: only what needs none, small"
    print(f"gpu-proof: {where}; {found.path}; work in {work}", flush=True)
    if not context.state.exists() and any(work.glob("state-*")):
        print("gpu-proof: figures of another tool, card, interpreter or size are left aside", flush=True)
    for name in names:
        if every[name] is not None:
            run_step(context, name, every[name])
    report = collect(context, every, found)
    write(report, out)
    failed = [step for step, state in report["steps"].items() if state["status"] == "failed"]
    failed += [claim.text for claim in claims.all_claims(report) if claim.verdict == claims.FAIL]
    for name in failed:
        print(f"gpu-proof: failed: {name}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
