"""The report as one markdown page, from the raw figures and nothing else.

Run as a program it makes the page again: table.py RESULTS.json
"""

import json
import pathlib
import sys

import claims

GIB = 1 << 30
WAYS = {"stock": "`from_pretrained`", "nibble": "`nibble.load`", "nibble-unverified": "`nibble.load(verify=False)`"}

PARTS = ("weights", "adapter", "gradients", "optimizer", "activations", "overhead", "total")


def gib(value: int | None) -> str:
    return "–" if value is None else f"{value / GIB:.2f}"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1%}"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines] + [""]


def head(report: dict) -> list[str]:
    machine, settings = report["machine"], report["settings"]
    card = machine["card"]
    lines = ["# 13B on 24 GiB: what this machine measured" if settings["whole"] else "# GPU proof, at trial size", ""]
    name = f"{card['name']}, driver {card['driver']}" if card else "none; what needs one was not run"
    if card and card["memory"]:
        name += f", {card['memory'] / GIB:.1f} GiB"
    versions = machine["versions"]
    rows = [
        ["NVIDIA card", name],
        ["measured", f"{report['first']} to {report['last']} (UTC)"],
        ["processors, memory", f"{machine['processors']}, {machine['memory'] / GIB:.0f} GiB"],
        ["Python packages", ", ".join(f"{name} {version}" for name, version in versions.items())],
        ["Python, CUDA of torch", f"{machine['python']}, {machine['cuda'] or 'none'}"],
        ["Nibble", machine["nibble"]],
        ["model", f"Llama, {settings['layers']} layers, hidden {settings['hidden']}, intermediate "
                  f"{settings['intermediate']}, vocabulary {settings['vocabulary']}, random weights in bf16"],
    ]
    if card and settings["whole"]:
        rows.append(["cap on PyTorch's allocator", f"{gib(settings['limit'])} GiB, or the card where it has less"])
    return lines + table(["", ""], rows)


def verdicts(report: dict) -> list[str]:
    rows = [[found.text, found.verdict, found.detail] for found in claims.all_claims(report)]
    return ["## Claims", "", *table(["claim", "verdict", "found"], rows)]


def work(report: dict) -> list[str]:
    rows = []
    if found := claims.figures(report, "checkpoint"):
        rows.append(["checkpoint made or found", f"{found['seconds']:.1f}", f"{found['bytes'] / 1e9:.2f} GB, "
                     f"{found['parameters'] / 1e9:.2f} G parameters, {found['files']} files"])
    if found := claims.figures(report, "quantize"):
        rows.append(["`nibble quantize`", f"{found['seconds']:.1f}",
                     f"{found['bytes_in'] / found['seconds'] / 1e9:.2f} GB/s of input; {found['bytes_out'] / 1e9:.2f} "
                     "GB written"])
        rows.append(["`cat` of its input", f"{found['cat_seconds']:.1f}",
                     f"{found['bytes_in'] / found['cat_seconds'] / 1e9:.2f} GB/s"])
    if found := claims.figures(report, "verify"):
        rows.append(["`nibble verify`", f"{found['seconds']:.1f}",
                     f"{found['bytes'] / found['seconds'] / 1e9:.2f} GB/s"])
    return ["## Checkpoint", "", *table(["work", "seconds", ""], rows)] if rows else []


def training_row(row: dict) -> list[str]:
    memory, fit = row.get("memory") or {}, row["fit"]
    outcome = row["outcome"]
    if outcome == "out of memory":
        outcome += f" ({row['during']})"
    losses = [loss for loss in row.get("losses", []) if loss is not None]
    speed = row.get("tokens_per_second")
    return [
        "bf16 LoRA" if row["model"] == "bf16" else "QLoRA", row["targets"], row["sequence"],
        "on" if row["checkpointing"] else "off", row["optimizer"], outcome,
        gib(memory.get("allocated")), gib(memory.get("reserved")), gib(memory.get("device")),
        gib(claims.planned(row)), percent(claims.difference(row)), gib(fit["per_gpu"]["total"]),
        percent(claims.device_difference(row)), "yes" if fit["fits"] else "no",
        "–" if speed is None else f"{speed:.0f}", f"{losses[0]:.3f} → {losses[-1]:.3f}" if losses else "–",
    ]


def training(report: dict) -> list[str]:
    rows = claims.rows_of(report, "train-bf16", *claims.trainings(report))
    if not rows:
        return []
    columns = ["training", "modules", "sequence", "checkpointing", "optimizer", "outcome", "peak allocated",
               "peak reserved", "card in use", "fit − context", "allocated vs. it", "fit's total", "card vs. it",
               "fit: fits", "tokens/s", "loss"]
    lines = [f"## Training, batch 1, LoRA of rank {report['settings']['rank']}", "",
             *table(columns, [training_row(row) for row in rows])]
    for row in rows:
        if row["outcome"] in ("failed", "out of memory"):
            lines += [f"- {row['name']}, {row['outcome']}: {row['message']}"]
    return lines + [
        "", "Memory in GiB. Peak allocated and reserved are torch's `max_memory_allocated` and `_reserved`, after "
        "the model is loaded; card in use is the fall of the card's free memory since before the process had a "
        "context: context, libraries and managed memory included. What `fit` takes for the context is taken off its "
        "total (weights, adapter, gradients, optimizer, activations, overhead) before it is compared with allocated "
        "memory; the whole total stands beside card in use. Paged state is in neither fit's total nor allocated "
        "memory; card in use holds it as long as there is room. No autocast; a fixed batch of random tokens; tokens/s "
        "is the median of the steps after the first.", ""]


def predictions(report: dict) -> list[str]:
    rows = []
    for row in claims.rows_of(report, "fit-13b"):
        per_gpu, fits = row["fit"]["per_gpu"], row["fit"]["fits"]
        rows.append([row["fit"]["strategy"], row["targets"], row["sequence"], "on" if row["checkpointing"] else "off",
                     row["optimizer"], *(gib(per_gpu[part]) for part in PARTS), "yes" if fits else "no"])
    if not rows:
        return []
    columns = ["strategy", "modules", "sequence", "checkpointing", "optimizer",
               *(part if part != "optimizer" else "its state" for part in PARTS), "fits 24 GiB"]
    return ["## What `nibble fit` expects of the 13B model on a card, in GiB, not measured here", "",
            *table(columns, rows)]


def loading(report: dict) -> list[str]:
    rows = []
    for row in claims.rows_of(report, "load-stock", "load-nibble"):
        memory = row["memory"] or {}
        rows.append([WAYS[row["way"]], "cold-ish" if row["cold"] else "warm", f"{row['median']:.2f}",
                     f"{min(row['seconds']):.2f} to {max(row['seconds']):.2f}, runs: {len(row['seconds'])}",
                     f"{row['bytes'] / row['median'] / 1e9:.2f}", gib(memory.get("allocated"))])
    if not rows:
        return []
    place = "card" if report["machine"]["card"] else "processor"
    columns = ["loaded with", "page cache", "seconds, median", "spread", "GB/s", "peak allocated, GiB"]
    lines = [f"## Loading the NF4 checkpoint onto the {place}", "", *table(columns, rows)]
    if not report["machine"]["card"]:
        lines += ["On the processor a loader may leave weights mapped and unread: these are no speeds of reading.", ""]
    return lines


def paging(report: dict) -> list[str]:
    found = claims.figures(report, "paging")
    if not found:
        return []
    seconds = ", ".join(f"{name} {value:.3f}" for name, value in found["seconds"].items())
    rows = [
        ["optimizer state, managed memory", f"{found['managed_bytes'] / 1e6:.0f} MB"],
        ["free on the card before there was state", f"{found['free_before_state'] / 1e6:.0f} MB"],
        ["filled with ordinary memory" + (" before the state was made" if found["full_at_first"] else ""),
         f"{found['filled'] / 1e6:.0f} MB"],
        ["at most left for the state", f"{found['room'] / 1e6:.0f} MB"],
        ["where the driver last sent it, by request to the host", found["asked_to_host"]],
        ["and back (0 is the card, -1 the host)", found["asked_to_card"]],
        ["seconds of each part of the training", seconds],
    ]
    return ["## Paging", "", *table(["", ""], rows)]


def codes(report: dict) -> list[str]:
    found = claims.figures(report, "codes")
    if not found:
        return []
    counts = found["codes"]
    rows = [
        [f"logits, {name}", f"relative error {row['relative']:.2e}, largest {row['largest']:.2e}, same choice "
         f"{row['same_choice']:.2%}"] for name, row in found["logits"].items()
    ]
    values, searched = found["values"], found["searched"]["values"]
    rows += [
        ["dequantized weights, card and processor", f"{values['equal']} of {values['values']} equal"],
        ["the same with searched scales", f"{searched['equal']} of {searched['values']} equal"],
        ["4-bit codes", f"{counts['equal_codes']} of {counts['codes']} equal"],
        ["block maxima in float32, bitsandbytes there and on the processor",
         f"{counts['equal_absmax']} of {counts['absmax']} equal"],
        ["block maxima in 8 bits", f"{counts['equal_nested']} of {counts['absmax']} equal"],
    ]
    return ["## The trained fixture: Nibble's 4 bits, and bitsandbytes' on the card", "", *table(["", ""], rows)]


def not_run(report: dict) -> list[str]:
    lines = []
    for name, state in report["steps"].items():
        if state["status"] != "done":
            lines.append(f"- {name}: {state['status']}, {state.get('reason', 'not asked for')}")
    if not lines:
        return []
    advice = [] if report["machine"]["card"] else [
        "", "For these, carry the pack that `make gpu-proof-pack` makes to a machine with an NVIDIA card, unpack it "
        "and run `./gpu-proof`; nothing is downloaded there."]
    return ["## Not run", "", *lines, *advice, ""]


def markdown(report: dict) -> str:
    parts = (head, verdicts, training, predictions, work, loading, paging, codes, not_run)
    return "\n".join(line for part in parts for line in part(report)).rstrip() + "\n"


if __name__ == "__main__":
    print(markdown(json.loads(pathlib.Path(sys.argv[1]).read_text())), end="")
