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
import os
import sys

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.dont_write_bytecode = True

import survey  # noqa: E402  (the environment above must be set before transformers is imported)

HERE = os.path.dirname(os.path.abspath(__file__))
RULES = os.path.join(HERE, "Rules", "rules.txt")
HEADER = """\
# Which modules of each transformers class are quantized. Written by generate.py; do not edit.
# transformers {transformers}, bitsandbytes {bitsandbytes}
#
# [names N]          renamings from checkpoint names to model names, applied in this order
#   r SCOPE P… => T    rename: the first regular expression that matches is replaced by T
#   g SCOPE P… => T…   rename pairs that count only when the first pattern occurs in the checkpoint
#   + K SCOPE P => T   rename that adds K to the captured number
#   c SCOPE P… => T…   conversion that merges, splits or permutes tensors: weights that cannot be packed
#                      SCOPE: `*` anywhere, `.` the base model, else a path below the base model
# [block N]          modules below a path; `*` stands for a whole number
# [class NAME…]      classes with the same answer
#   prefix P           base_model_prefix
#   tie D              default of tie_word_embeddings: 0 or 1
#   names N            index of the renamings (the common ones of names 0 always come last)
#   @ N PATH           a block at a path
#   KIND PATH NAME…    modules of one kind below a path (`.` for the root)
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


class Writer:
    """Numbers blocks by content, so that shared towers and decoders are written once."""

    def __init__(self):
        self.blocks = {}
        self.uses = collections.Counter()

    def block(self, lines):
        key = tuple(lines)
        self.blocks.setdefault(key, len(self.blocks) + 1)
        return self.blocks[key]

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
            lines.append(f"@ {self.block(self.body(below, nested))} {part}")
        return lines + grouped(rest)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--list", action="store_true", help="print the classes that were left out")
    parser.add_argument("--only", help="regular expression of class names, for trials; prints instead of writing")
    options = parser.parse_args()

    surveyed, failures = survey.survey(options.only)
    writer = Writer()
    names = {}
    common = survey.common_renamings()
    groups = collections.defaultdict(list)
    for name, answer in sorted(surveyed.items()):
        lines = [f"prefix {answer.prefix}"] if answer.prefix else []
        lines.append(f"tie {int(answer.ties)}")
        if answer.renamings:
            index = names.setdefault(tuple(answer.renamings), len(names) + 1)
            lines.append(f"names {index}")
        lines += writer.body(answer.entries, answer.parts)
        groups[tuple(lines)].append(name)

    out = [HEADER.format(**survey.versions()).rstrip()]
    for index, rows in [(0, common)] + sorted((index, rows) for rows, index in names.items()):
        out += [f"[names {index}]", *rows]
    for lines, index in sorted(writer.blocks.items(), key=lambda item: item[1]):
        out += [f"[block {index}]", *lines]
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
        f"{len(names)} renaming lists, {len(text)} bytes",
        file=sys.stderr,
    )
    if options.list:
        for name, reason in sorted(failures.items()):
            print(f"left out: {name}: {reason}", file=sys.stderr)


if __name__ == "__main__":
    main()
