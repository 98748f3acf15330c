"""What is claimed, judged from the figures alone: every function here is pure.

A claim passes, fails, or was not run, and says why.
"""

import dataclasses
import math

TOLERANCE = 0.10  # of nibble fit
LOGITS = {"float32": 2e-3, "bfloat16": 2e-2}  # relative error, card against processor
GIB = 1 << 30
PASS, FAIL, NOT_RUN = "pass", "FAIL", "not run"


@dataclasses.dataclass
class Claim:
    text: str
    verdict: str
    detail: str


def planned(row: dict) -> int:
    """`nibble fit`'s total less what it takes for the CUDA context: what torch's allocator should have to give."""
    return row["fit"]["per_gpu"]["total"] - row["fit"]["framework"]


def difference(row: dict) -> float | None:
    """Of the measured peak of allocated memory from the planned one, as a part of the planned; None without a peak."""
    if row["outcome"] != "trained" or not row.get("memory"):
        return None
    return row["memory"]["allocated"] / planned(row) - 1


def device_difference(row: dict) -> float | None:
    """The same for all that the card has in use, against fit's total."""
    if row["outcome"] != "trained" or not row.get("memory"):
        return None
    return row["memory"]["device"] / row["fit"]["per_gpu"]["total"] - 1


def falls(losses: list) -> bool:
    """All finite, and the last below the first."""
    return len(losses) > 1 and all(x is not None and math.isfinite(x) for x in losses) and losses[-1] < losses[0]


def judge(text: str, good: bool, detail: str) -> Claim:
    return Claim(text, PASS if good else FAIL, detail)


def rows_of(report: dict, *steps: str) -> list[dict]:
    return [row for step in steps for row in figures(report, step).get("rows", [])]


def figures(report: dict, step: str) -> dict:
    state = report["steps"].get(step, {})
    return state["figures"] if state.get("status") == "done" else {}


def missing(report: dict, *steps: str) -> tuple[str, str] | None:
    """Verdict and reason where a step that the claim rests on has no figures; a failed one weighs most."""
    states = [(step, report["steps"].get(step, {"status": "not run"})) for step in steps]
    for step, state in states:
        if state["status"] == "failed":
            return FAIL, f"step {step}: {state['reason']}"
    for step, state in states:
        if state["status"] != "done":
            return NOT_RUN, f"step {step}: {state.get('reason', 'not asked for yet')}"
    return None


def claim(report: dict, text: str, steps: list[str], check, whole: bool = False) -> Claim:
    if whole and not report["machine"]["card"]:
        return Claim(text, NOT_RUN, "no NVIDIA card")
    if absent := missing(report, *steps):
        return Claim(text, *absent)
    if whole and not report["settings"]["whole"]:
        return Claim(text, NOT_RUN, "only the whole 13B model can show it")
    return judge(text, *check())


def trainings(report: dict) -> list[str]:
    """Steps that train in 4 bits."""
    if report["machine"]["card"]:
        return [f"train-{length}" for length in report["settings"]["sequences"]]
    return ["train-cpu"]


def bad_rows(rows: list[dict], is_good) -> str:
    return ", ".join(row["name"] for row in rows if not is_good(row))


def verified(report):
    def check():
        return figures(report, "verify")["ok"], f"{figures(report, 'verify')['bytes'] / 1e9:.2f} GB read"
    return claim(report, "`nibble verify` finds every byte of the NF4 checkpoint as written", ["quantize", "verify"],
                 check)


def sixteen_bits(report):
    def check():
        rows = rows_of(report, "train-bf16")
        bad = bad_rows(rows, lambda row: row["outcome"] == "out of memory")
        return not bad, f"ran out of memory in {len(rows)} of {len(rows)} runs" if not bad else f"did not: {bad}"
    return claim(report, "LoRA on the 13B model in bf16 does not fit 24 GiB", ["train-bf16"], check, whole=True)


def in_use(row: dict) -> int:
    """Most that the card had in use, while the model was loaded or trained."""
    return max(row["memory"]["device"], row["loading"]["device"])


def fits_card(report):
    def check():
        limit = report["settings"]["limit"]
        rows = [row for row in rows_of(report, *trainings(report)) if row["checkpointing"]]
        bad = bad_rows(rows, lambda row: row["outcome"] == "trained" and in_use(row) <= limit)
        if bad:
            return False, f"not so: {bad}"
        longest = max(rows, key=lambda row: (row["sequence"], in_use(row)))
        return True, (f"{in_use(longest) / GIB:.2f} GiB of the card in use at sequence "
                      f"{longest['sequence']}, context and paged state included")
    text = "QLoRA on Nibble's 13B shards trains within 24 GiB, with gradient checkpointing, at every length"
    return claim(report, text, trainings(report), check, whole=True)


def losses_fall(report):
    def check():
        rows = [row for row in rows_of(report, *trainings(report)) if row["outcome"] != "out of memory"]
        bad = bad_rows(rows, lambda row: row["outcome"] == "trained" and falls(row["losses"]))
        if bad or not rows:
            return False, f"not so: {bad or 'nothing trained'}"
        return True, f"in all runs: {len(rows)}"
    return claim(report, "Losses are finite and fall", trainings(report), check)


def planned_well(report):
    def good(row):
        if row["outcome"] == "out of memory":
            # The peak would have been above the cap, so what was planned must not be far below it.
            return planned(row) >= (1 - TOLERANCE) * row["memory"]["limit"]
        return row["outcome"] == "trained" and abs(difference(row)) <= TOLERANCE

    def check():
        rows = rows_of(report, *trainings(report))
        bad = bad_rows(rows, good)
        measured = [difference(row) for row in rows if difference(row) is not None]
        span = f"{min(measured):+.1%} to {max(measured):+.1%}" if measured else "no run has a peak"
        return not bad and bool(measured), span + (f"; not within: {bad}" if bad else "")
    text = f"`nibble fit` is within {TOLERANCE:.0%} of the measured peak of allocated memory"
    return claim(report, text, trainings(report), check, whole=True)


def loaded_alike(report):
    def check():
        found = figures(report, "load-equal")
        if not found["equal"]:
            return False, found["difference"]
        return True, (f"{found['parameters']} parameters, {found['quantized']} of them in 4 bits with "
                      f"{found['states']} tensors of statistics, {found['buffers']} buffers")
    return claim(report, "`nibble.load` and `from_pretrained` give the same model, bit for bit", ["load-equal"], check)


def pages(report):
    def check():
        found = figures(report, "paging")
        mine, plain = found["losses"], found["unpaged_losses"]
        equal = bool(mine) and all(map(math.isfinite, mine)) and mine == plain[: len(mine)]
        pressed = found["room"] < found["state_bytes"] and found["managed_bytes"] == found["state_bytes"]
        detail = (f"{found['managed_bytes'] / 1e6:.0f} MB of state, room for {found['room'] / 1e6:.0f} MB, "
                  f"{len(mine)} losses {'equal' if equal else 'NOT equal'} to those unpaged")
        return equal and pressed, detail
    text = "Paged optimizer state leaves a full card and comes back; training goes on with the same losses"
    return claim(report, text, ["paging"], check)


def same_logits(report):
    def check():
        found = figures(report, "codes")["logits"]
        good = all(found[name]["finite"] and found[name]["relative"] <= limit for name, limit in LOGITS.items())
        return good, ", ".join(f"{name} {found[name]['relative']:.1e} (at most {limit:.0e})"
                               for name, limit in LOGITS.items())
    return claim(report, "4-bit logits on the card are those on the processor, by relative error", ["codes"], check)


def same_searched_logits(report):
    def check():
        found = figures(report, "codes")["searched"]
        good = found["negative"] > 0 and all(
            found["logits"][name]["finite"] and found["logits"][name]["relative"] <= limit
            for name, limit in LOGITS.items())
        relative = ", ".join(f"{name} {found['logits'][name]['relative']:.1e}" for name in LOGITS)
        return good, f"{found['negative']} blocks with negative scales; {relative}"
    return claim(report, "The same of a file with searched scales, negative ones too", ["codes"], check)


def all_claims(report: dict) -> list[Claim]:
    order = (verified, sixteen_bits, fits_card, losses_fall, planned_well, loaded_alike, pages, same_logits,
             same_searched_logits)
    return [make(report) for make in order]
