#!/usr/bin/env python3
"""Writes Rules/contents.txt: which parameters the generating classes of transformers have, and their shapes.

    python contents.py            # rewrite Rules/contents.txt; the same packages give the same bytes

Each class is built on the meta device under many configurations: its default one, every flag the other way round,
every whole number doubled and tripled, at nought and one more, periods of two and three layers, lists of some layers.
A parameter that is there in every layer of every one of them must be in every checkpoint. A dimension that is the same
sum of products of the configuration's numbers in every one of them is written down as that; any other is left open.
Needs what generate.py needs.
"""

import argparse
import collections
import os
import re
import sys

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.dont_write_bytecode = True

import survey  # noqa: E402  (the environment above must be set before transformers is imported)
from looks import Looks, container, values  # noqa: E402
from presence import OPTIONAL, Presence  # noqa: E402
from sizes import Sizes, defaults_of  # noqa: E402

CONTENTS = os.path.join(survey.HERE, "Rules", "contents.txt")
HEADER = """\
# Which parameters each generating class of transformers has. Written by contents.py; do not edit.
# transformers {transformers}
#
# [block N]              parameters below a path; `*` stands for a whole number
# [class NAME…]          classes with the same answer
#   @ N PATH             a block at a path (`.`: the root)
#   * PATH MEMBER        how many numbers follow a path, by a member of config.json (dots for members of members)
#   ~ MEMBER SIZE…       what a member stands for that is null or not there: the first SIZE that is known
#   KIND PATH SHAPE NAME…  parameters below a path: SHAPE has a SIZE for each comma. A SIZE is a sum of products and
#                        quotients of numbers and members of config.json; `-` is open, `~` too and differs by layer
#     !   must be there, in every number of the path; with numbers, only where it has those
#     =G  all of one G are there or none, number by number
#     >G  is there wherever one of G is
#     +   in every number or in none
#     ?   may be there; behind another, there or in no number at all
#     A number of `!` may be `*`, any, or `1+`, any but the first.
#   | PATH G H [NAME]    one of two groups is there, number by number; with NAME, just where that is
#   ^ PATH NAME…         tied, whatever tie_word_embeddings says
#   % PATH MEMBER[:off] NAME…  there only where a member is true, which by itself it is not (`:off`) or may be
"""
CLASSES = re.compile(
    # Perceiver's base model depends on its head, LeViT's layers on its stages; VideoMAE counts positions for minutes.
    r"(?!Perceiver|VideoMAE|Levit).*(ForCausalLM|LMHeadModel|ForConditionalGeneration|ForMaskedLM|ForQuestionAnswering|For(Sequence|Token)Classification"
    r"|For(ImageClassification|MultipleChoice|NextSentencePrediction|PreTraining)|DoubleHeadsModel|MTModel)"
    # Models of a text and an image.
    r"|(CLIP|MetaClip2|Siglip2?)(Text|Vision)?Model(WithProjection)?"
)

def answered(name):
    try:
        return ask(survey.CLASSES[name])
    except Exception as error:
        return survey.reason(error)


def switches(looks, presence):
    """[(pattern, member, whether it is off by itself)] of biases that one member turns on."""
    found = []
    members = [path for path, value in looks.first.values.items() if type(value) is bool and "bias" in path]
    for pattern in presence.patterns:
        kind = presence.kinds[pattern]
        if not pattern.endswith("bias") or kind[0] == "!" and kind[-1] != "?":
            continue
        # Where the module itself is there.
        weight = pattern[: -len("bias")] + "weight"
        for member in members:
            there = [(look.values.get(member), pattern in look.by_pattern) for look in looks.every
                     if pattern in look.by_pattern or weight in look.by_pattern]
            if all(isOn is isThere for isOn, isThere in there) and {isOn for isOn, _ in there} == {True, False}:
                found.append((pattern, member, looks.base_values.get(member) is False))
                break
    return found


def shapes_of(looks, patterns, buffers):
    """(what found the sizes, {pattern: SHAPE})"""
    sizes, found = [Sizes(looks)], {}
    for other in looks.further:
        sizes.append(Sizes(other, sizes[0]))
    for pattern in patterns:
        dimensions = {len(shape) for look in looks.every for shape in look.by_pattern.get(pattern, {}).values()}
        part = next((part for part in sizes if pattern in part.looks.first.by_pattern), sizes[0])
        if len(dimensions) == 1:
            words = [part.size(pattern, axis) for axis in range(dimensions.pop())]
            found[pattern] = "-" if set(words) <= {"-"} else ",".join(words)
    # The bias of a linear layer is as long as its weight has rows, a buffer often as well.
    for pattern in [p for p, shape in found.items() if p.endswith(".bias") and shape == "-"] + sorted(buffers):
        weight = pattern.rpartition(".")[0] + ".weight"
        rows = [(look.by_pattern.get(pattern) or look.buffers[pattern], look.by_pattern.get(weight, {}))
                for look in looks.every if pattern in look.by_pattern or pattern in look.buffers]
        size = found.get(weight, "-").split(",")[0]
        if size not in "-~" and all((weights.get(at) or "-")[:1] == shape for some, weights in rows for at, shape in some.items()):
            found[pattern] = size
    return sizes, found


def inner_stacks(looks):
    """{path: member} of lists within layers, as long in each as a member says."""
    lengths = collections.defaultdict(list)
    for look in looks.every:
        inner = collections.defaultdict(lambda: collections.defaultdict(set))
        for pattern, found in look.by_pattern.items():
            path = container(pattern)[0]
            if path.count("*") > 1 and path.endswith(".*") and "*" not in container(pattern)[1]:
                for at in found:
                    inner[path[:-2]][at[:-1]].add(int(at[-1]))
        for path, layers in inner.items():
            counts = {len(at) if at == set(range(len(at))) else -1 for at in layers.values()}
            lengths[path].append((counts.pop() if len(counts) == 1 else -1, look.values))
    found = {}
    for path, rows in lengths.items():
        fitting = [member for member in looks.first.values
                   if all(type(known.get(member)) is int and known[member] == length for length, known in rows)]
        if len(fitting) == 1 and len({length for length, _ in rows}) > 1:
            found[path] = fitting[0]
    return found


def kept_ties(looks):
    """Patterns that are tied though a configuration is made with tie_word_embeddings false."""
    try:
        config = type(looks.small)(**{"tie_word_embeddings": False})
        ties = config.tie_word_embeddings
    except Exception:
        return []
    return sorted({pattern for look in looks.every for pattern in look.tied}) if ties else []


def members_of(entries, stacks):
    """Members of config.json that shapes and stacks ask for."""
    return {word for _, _, shape in entries for word in re.findall(r"[A-Za-z_][\w.]*", shape)} | set(stacks.values())


def ask(cls):
    looks = Looks(cls)
    looks.base_values = values(looks.base())
    presence = Presence(looks)
    sizes, shapes = shapes_of(looks, presence.patterns, set(presence.kinds) - set(presence.patterns))
    entries = [(pattern, kind, shapes.get(pattern, "-")) for pattern, kind in presence.kinds.items()]
    stacks = inner_stacks(looks)
    for path in {path for look in looks.counts for path in look.counts}:
        found = [(look.counts.get(path, set()), look.values) for look in looks.counts]
        # A stack that skips numbers does not tell which it needs.
        lengths = [(len(at) if at == set(range(len(at))) else -1, known) for at, known in found]
        fitting = [
            member for member in looks.first.values
            if all(type(known.get(member)) is int and known[member] == length for length, known in lengths)
        ]
        if len(fitting) == 1 and len({length for length, _ in lengths}) > 1:
            stacks[path] = fitting[0]
    used = members_of(entries, stacks)
    defaults = defaults_of(looks.small)
    for member, text in [row for part in sizes for row in part.defaults.items()]:
        if text not in defaults[member]:
            # What is a number is the last resort.
            defaults[member].insert(len(defaults[member]) - any(text.isdigit() for text in defaults[member]), text)
    # Where one member is made from another that has a second name, the second name may be the one that is stated.
    defaults = [(member, texts) for member, texts in sorted(defaults.items()) if member in used and texts]
    kept = kept_ties(looks)
    return (
        entries, stacks, presence.choices(), switches(looks, presence), kept, defaults, looks.first.prefix,
        looks.first.base)


def lines_of(entries, stacks, choices, switched, kept):
    grouped, turned = collections.defaultdict(list), collections.defaultdict(list)
    for pattern, kind, shape in entries:
        path, rest = container(pattern)
        grouped[path, kind, shape].append(rest)
    for pattern, member, isOff in switched:
        path, rest = container(pattern)
        turned[path, member + (":off" if isOff else "")].append(rest)
    lines = [f"* {path} {member}" for path, member in sorted(stacks.items())]
    lines += [f"{kind} {path} {shape} {' '.join(sorted(names))}" for (path, kind, shape), names in sorted(grouped.items())]
    lines += [f"| {path} {' '.join(map(str, rest))}" for path, *rest in sorted(choices)]
    lines += [f"% {path} {member} {' '.join(sorted(names))}" for (path, member), names in sorted(turned.items())]
    always = collections.defaultdict(list)
    for pattern in kept:
        path, rest = container(pattern)
        always[path].append(rest)
    return lines + [f"^ {path} {' '.join(names)}" for path, names in sorted(always.items())]


def chosen(part, isChosen, cut):
    """Of rows that begin with a path, or paths, or a dictionary by path, those that are chosen, without their start."""
    if isinstance(part, dict):
        return {path[cut:]: value for path, value in part.items() if isChosen(path)}
    rows = [row if isinstance(row, tuple) else (row,) for row in part if isChosen(row if isinstance(row, str) else row[0])]
    cut_rows = [(path[cut:], *rest) for path, *rest in rows]
    return [path for path, *_ in cut_rows] if part and isinstance(part[0], str) else cut_rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", help="regular expression of class names, for trials; prints instead of writing")
    options = parser.parse_args()
    survey.NAMES = CLASSES
    answers = survey.for_every_class(answered, options.only or CLASSES.pattern)
    blocks, classes, failures = {}, {}, {}
    for name, answer in answers.items():
        if isinstance(answer, str):
            failures[name] = answer
            continue
        *parts, defaults, prefix, base = answer
        stated = [f"~ {member} {' '.join(texts)}" for member, texts in defaults]
        inner = lambda path: bool(prefix) and path.startswith(prefix + ".")
        inside = [chosen(part, inner, len(prefix) + 1) for part in parts]
        if not inside[0]:
            classes[name] = stated + lines_of(*parts)
            continue
        number = blocks.setdefault(tuple(lines_of(*inside)), len(blocks) + 1)
        outside = [chosen(part, lambda path: not inner(path), 0) for part in parts]
        classes[name] = [f"@ {number} {prefix}", *stated, *lines_of(*outside)]
        if base and base not in classes:
            # By itself it has a pooler or none.
            inside[0] = [(path, "?" if OPTIONAL.search(path) else kind, shape) for path, kind, shape in inside[0]]
            number = blocks.setdefault(tuple(lines_of(*inside)), len(blocks) + 1)
            used = members_of(*inside[:2])
            classes[base] = [f"@ {number} .", *(line for line in stated if line.split()[1] in used)]
    groups = collections.defaultdict(list)
    for name, lines in sorted(classes.items()):
        groups[tuple(lines)].append(name)
    out = [HEADER.format(**survey.versions()).rstrip()]
    for lines, number in blocks.items():
        out += [f"[block {number}]", *lines]
    for lines, names in sorted(groups.items(), key=lambda item: item[1]):
        out += [f"[class {' '.join(names)}]", *lines]
    text = "\n".join(out) + "\n"
    if options.only:
        sys.stdout.write(text)
    else:
        with open(CONTENTS, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
    print(f"{len(classes)} classes, {len(blocks)} blocks, {len(text)} bytes, {len(failures)} left out", file=sys.stderr)
    for name, why in sorted(failures.items()):
        print(f"left out: {name}: {why}", file=sys.stderr)


if __name__ == "__main__":
    main()
