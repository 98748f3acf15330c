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
#     ?   may be there
#   | PATH G H           one of two groups is there, number by number
#   % PATH MEMBER[:off] NAME…  there only where a member is true, which by itself it is not (`:off`) or may be
"""
CLASSES = re.compile(
    # What Perceiver's base model is made of depends on its head.
    r"(?!Perceiver).*(ForCausalLM|LMHeadModel|ForConditionalGeneration|ForMaskedLM|ForQuestionAnswering|For(Sequence|Token)Classification)"
)
# Set anew by tasks, or left out by loaders that do not need them.
OPTIONAL = re.compile(r"(^|\.)pooler\.")


def answered(name):
    try:
        return ask(survey.CLASSES[name])
    except Exception as error:
        return survey.reason(error)


def mask_of(pattern, signature, whole):
    """The numbers that a path must have for a parameter to be there, `*` for any; None if they do not tell.

    Only of parts within a layer: which layers are of which kind, a configuration may say anew.
    """
    positions = list(zip(*(at for _, at in signature)))
    mask = [str(min(at)) if len(set(at)) == 1 else "*" for at in positions]
    fits = lambda at: all(part in ("*", str(number)) for part, number in zip(mask, at))
    inside = {(index, at) for index, at in whole if fits(at)}
    return ".".join(mask) if len(mask) > 1 and inside == signature and set(mask) != {"*"} else None


class Presence:
    """Of each parameter, whether it must be there."""

    def __init__(self, looks):
        every = looks.every
        self.patterns = sorted({pattern for look in every for pattern in look.by_pattern})
        self.optional = {pattern for look in every for pattern in look.tied | look.ignored}
        self.optional |= {p for p in self.patterns if OPTIONAL.search(p) or "*" in container(p)[1]}
        self.signatures = {
            pattern: frozenset((index, at) for index, look in enumerate(every) for at in look.by_pattern.get(pattern, {}))
            for pattern in self.patterns}
        self.whole = collections.defaultdict(set)
        for pattern in self.patterns:
            if "*" not in container(pattern)[1]:
                self.whole[container(pattern)[0]] |= self.signatures[pattern]
        # A layer without parameters is one as well, where the stack's other layers have some.
        self.whole["."] = {(index, ()) for index in range(len(every))}
        self.groups = {}
        self.kinds = {pattern: self.kind(pattern) for pattern in self.patterns}
        for pattern in self.patterns:
            if self.kinds[pattern] is None:
                self.kinds[pattern] = self.lone(pattern)

    def alike(self, pattern):
        path = container(pattern)[0]
        return [p for p in self.patterns if container(p)[0] == path and p not in self.optional]

    def group(self, pattern):
        key = (container(pattern)[0], self.signatures[pattern])
        return self.groups.setdefault(key, len(self.groups))

    def kind(self, pattern):
        path = container(pattern)[0]
        if pattern in self.optional:
            return "?"
        signature = self.signatures[pattern]
        if signature == self.whole[path]:
            return "!"
        mask = mask_of(pattern, signature, self.whole[path])
        if mask:
            return "!" + mask
        if sum(self.signatures[p] == signature for p in self.alike(pattern)) > 1:
            return f"={self.group(pattern)}"
        return None

    def lone(self, pattern):
        """Of one that goes with no other: what it is never left out beside."""
        path, signature = container(pattern)[0], self.signatures[pattern]
        if path != ".":
            inner = [p for p in self.alike(pattern) if self.signatures[p] < signature and not p.endswith(".bias")]
            if inner:
                first = max(inner, key=lambda p: (len(self.signatures[p]), p))
                number = self.group(first)
                if self.kinds[first] is None or not self.kinds[first].startswith(("!", "=")):
                    self.kinds[first] = f"={number}"
                if self.kinds[first] == f"={number}":
                    return f">{number}"
            numbers = lambda signature: {index: {at for i, at in signature if i == index} for index, _ in signature}
            whole = numbers(self.whole[path])
            taken = [set(at) for at in zip(*(at for _, at in signature))]
            # With one number always where it is only ever there.
            fixed = [at.copy().pop() if len(at) == 1 else None for at in taken]
            fits = lambda at: all(wanted in (None, number) for wanted, number in zip(fixed, at))
            if all(at == {number for number in whole[index] if fits(number)} for index, at in numbers(signature).items()):
                return "+"
        return "?"

    def choices(self):
        return [
            (path, number, other)
            for (path, signature), number in self.groups.items()
            for (below, rest), other in self.groups.items()
            if path == below and number < other and signature | rest == self.whole[path] and not signature & rest
        ]


def switches(looks, presence):
    """[(pattern, member, whether it is off by itself)] of biases that one member turns on."""
    found = []
    members = [path for path, value in looks.first.values.items() if type(value) is bool and "bias" in path]
    for pattern in presence.patterns:
        if not pattern.endswith("bias") or presence.kinds[pattern].startswith("!"):
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


def ask(cls):
    looks = Looks(cls)
    looks.base_values = values(looks.base())
    sizes, presence = Sizes(looks), Presence(looks)
    buffers = sorted({survey.generalised(name) for look in looks.every for name in look.buffers} - set(presence.patterns))
    entries = []
    for pattern in presence.patterns:
        dimensions = {len(shape) for look in looks.every for shape in look.by_pattern.get(pattern, {}).values()}
        shape = "-"
        if len(dimensions) == 1:
            words = [sizes.size(pattern, axis) for axis in range(dimensions.pop())]
            shape = "-" if set(words) <= {"-"} else ",".join(words)
        entries.append((pattern, presence.kinds[pattern], shape))
    entries += [(pattern, "?", "-") for pattern in buffers]
    stacks = {}
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
    used = {word for _, _, shape in entries for word in re.findall(r"[A-Za-z_][\w.]*", shape)} | set(stacks.values())
    defaults = defaults_of(looks.small)
    for member, text in sizes.defaults.items():
        if text not in defaults[member]:
            defaults[member].append(text)
    # Where one member is made from another that has a second name, the second name may be the one that is stated.
    defaults = [(member, texts) for member, texts in sorted(defaults.items()) if member in used and texts]
    return entries, stacks, presence.choices(), switches(looks, presence), defaults, looks.first.prefix, looks.first.base


def lines_of(entries, stacks, choices, switched):
    grouped, turned = collections.defaultdict(list), collections.defaultdict(list)
    for pattern, kind, shape in entries:
        path, rest = container(pattern)
        grouped[path, kind, shape].append(rest)
    for pattern, member, isOff in switched:
        path, rest = container(pattern)
        turned[path, member + (":off" if isOff else "")].append(rest)
    lines = [f"* {path} {member}" for path, member in sorted(stacks.items())]
    lines += [f"{kind} {path} {shape} {' '.join(sorted(names))}" for (path, kind, shape), names in sorted(grouped.items())]
    lines += [f"| {path} {number} {other}" for path, number, other in sorted(choices)]
    return lines + [f"% {path} {member} {' '.join(sorted(names))}" for (path, member), names in sorted(turned.items())]


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
        entries, stacks, choices, switched, defaults, prefix, base = answer
        stated = [f"~ {member} {' '.join(texts)}" for member, texts in defaults]
        inner = lambda path: bool(prefix) and path.startswith(prefix + ".")
        cut = lambda path: path[len(prefix) + 1 :]
        inside = [(cut(path), *rest) for path, *rest in entries if inner(path)]
        if not inside:
            classes[name] = stated + lines_of(entries, stacks, choices, switched)
            continue
        lines = lines_of(
            inside, {cut(path): member for path, member in stacks.items() if inner(path)},
            [(cut(path), *rest) for path, *rest in choices if inner(path)],
            [(cut(path), *rest) for path, *rest in switched if inner(path)])
        number = blocks.setdefault(tuple(lines), len(blocks) + 1)
        outside = lines_of(
            [entry for entry in entries if not inner(entry[0])],
            {path: member for path, member in stacks.items() if not inner(path)},
            [choice for choice in choices if not inner(choice[0])], [row for row in switched if not inner(row[0])])
        classes[name] = [f"@ {number} {prefix}", *stated, *outside]
        if base and base not in classes:
            classes[base] = [f"@ {number} .", *stated]
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
