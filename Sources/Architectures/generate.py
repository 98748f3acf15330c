#!/usr/bin/env python3
"""Writes Rules/rules.txt: which modules of every transformers class become 4-bit linears.

    python generate.py            # rewrite Rules/rules.txt; the same packages give the same bytes
    python generate.py --list     # also print the classes that were left out, with the reason

Every `PreTrainedModel` class of the installed transformers is instantiated on the meta device, as
`from_pretrained` does it, and handed to transformers' own `get_keys_to_not_convert` and
`replace_with_bnb_linear`. Needs transformers 5.23.0 and bitsandbytes 0.50.2; timm, torchvision, pillow and
scipy as well, or the classes that import them are missing from the result.
"""

import argparse
import collections
import itertools
import os
import sys

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.dont_write_bytecode = True

import survey  # noqa: E402  (the environment above must be set before transformers is imported)

RULES = os.path.join(survey.HERE, "Rules", "rules.txt")
HEADER = """\
# Which modules of each transformers class are quantized. Written by generate.py; do not edit.
# transformers {transformers}, bitsandbytes {bitsandbytes}
#
# [names N]          renamings from checkpoint names to model names, applied in this order; 0 is common to all
#   r P… => T          rename: the first regular expression that matches is replaced by T
#   g P… => T…         rename pairs that count only when the first pattern occurs in the checkpoint
#   + K P => T         rename that adds K to the captured number
#   c P… => T…         conversion that merges, splits or permutes tensors: their weights cannot be packed
# [block N]          modules below a path; `*` stands for a whole number, `expert_*` for a numbered expert
# [class NAME…]      classes with the same answer
#   prefix P ties      base_model_prefix (`-`: none); `ties` when tie_word_embeddings is true by default
#   replaces-experts   the loader puts layers of its own in place of the stacked experts of a 4-bit checkpoint
#   names N SCOPE      renamings of names below SCOPE only (`.`: the base model); without SCOPE of any name
#   @ N PATH           a block at a path (`.`: the root)
#   KIND PATH NAME…    modules of one kind below a path
#     L nn.Linear, quantized                     C Conv1D, quantized after transposing
#     o the output embedding                     t quantized unless tie_word_embeddings
#     f in _keep_in_fp32_modules                 l the last parameter; `$` is the highest number there is
#     S subclass of nn.Linear, never quantized   N any other module whose weight has two dimensions
#     R like N, a router                         E a parameter (not a module) of stacked experts
"""


def grouped(entries):
    """Lines `KIND PATH NAME…` for {(path, kind)}, sorted."""
    groups = collections.defaultdict(list)
    for path, kind in entries:
        parent, _, name = path.rpartition(".")
        groups[kind, parent or "."].append(name)
    return [f"{kind} {parent} {' '.join(sorted(names))}" for (kind, parent), names in sorted(groups.items())]


class Numbers(dict):
    """Numbers its keys in the order in which they are first asked for."""

    def __missing__(self, key):
        self[key] = len(self) + 1
        return self[key]


class Writer:
    """Numbers blocks by content, so that shared towers and decoders are written once."""

    def __init__(self):
        self.blocks = Numbers()
        self.names = Numbers()

    def body(self, entries, parts):
        """Lines for `entries`, with what lies below the sub-models at `parts` moved into blocks."""
        lines = []
        rest = set(entries)
        for part in sorted(parts):
            inside = {(path, kind) for path, kind in rest if path.startswith(part + ".")}
            if len(inside) < 3:
                continue
            rest -= inside
            nested = [other[len(part) + 1 :] for other in parts if other.startswith(part + ".")]
            below = {(path[len(part) + 1 :], kind) for path, kind in inside}
            lines.append(f"@ {self.blocks[tuple(self.body(below, nested))]} {part}")
        return lines + grouped(rest)

    def renamings(self, rows):
        """Lines `names N SCOPE`, one for each run of (scope, row) with the same scope."""
        lines = []
        for scope, run in itertools.groupby(rows, key=lambda row: row[0]):
            number = self.names[tuple(row for _, row in run)]
            lines.append(f"names {number}" if scope is None else f"names {number} {scope}")
        return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--list", action="store_true", help="print the classes that were left out")
    parser.add_argument("--only", help="regular expression of class names, for trials; prints instead of writing")
    options = parser.parse_args()

    surveyed, failures = survey.survey(options.only)
    writer = Writer()
    bodies = {name: tuple(writer.body(answer.entries, answer.parts)) for name, answer in sorted(surveyed.items())}
    uses = collections.Counter(bodies.values())
    groups = collections.defaultdict(list)
    for name, answer in sorted(surveyed.items()):
        lines = [f"prefix {answer.prefix or '-'}" + (" ties" if answer.ties else "")]
        lines += ["replaces-experts"] if answer.replaces_experts else []
        lines += writer.renamings(answer.renamings)
        body = bodies[name]
        # A base model is a block of its heads; classes that differ in prefix or renamings only share one too.
        shared = body in writer.blocks or uses[body] > 1 and sum(map(len, body)) > 100
        lines += [f"@ {writer.blocks[body]} ."] if shared else body
        groups[tuple(lines)].append(name)

    out = [HEADER.format(**survey.versions()).rstrip()]
    out += ["[names 0]", *(row for _, row in survey.common_renamings())]
    for rows, number in writer.names.items():
        out += [f"[names {number}]", *rows]
    for lines, number in writer.blocks.items():
        out += [f"[block {number}]", *lines]
    for lines, classes in sorted(groups.items(), key=lambda item: item[1]):
        out += [f"[class {' '.join(classes)}]", *lines]
    text = "\n".join(out) + "\n"
    if options.only:
        sys.stdout.write(text)
    else:
        with open(RULES, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
    print(
        f"{len(surveyed)} classes, {len(failures)} left out, {len(groups)} groups, {len(writer.blocks)} blocks, "
        f"{len(writer.names)} lists of renamings, {len(text)} bytes",
        file=sys.stderr,
    )
    if options.list:
        for name, reason in sorted(failures.items()):
            print(f"left out: {name}: {reason}", file=sys.stderr)


if __name__ == "__main__":
    main()
