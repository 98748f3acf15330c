#!/usr/bin/env python3
"""Writes Rules/contents.txt: which parameters the generating classes of transformers have, and their shapes.

    python contents.py            # rewrite Rules/contents.txt; the same packages give the same bytes

Each class is built on the meta device under many configurations: its default one, every flag the other way round,
every whole number doubled and tripled. A parameter that is there in every layer of every one of them must be in every
checkpoint. A dimension that is a number of the configuration, a small multiple of one or a product of two in every one
of them is written down as that; any other is left open. Needs what generate.py needs.
"""

import argparse
import collections
import copy
import os
import re
import sys

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.dont_write_bytecode = True

from transformers import PreTrainedConfig  # noqa: E402

import survey  # noqa: E402  (the environment above must be set before transformers is imported)
import variants  # noqa: E402

CONTENTS = os.path.join(survey.HERE, "Rules", "contents.txt")
HEADER = """\
# Which parameters each generating class of transformers has. Written by contents.py; do not edit.
# transformers {transformers}
#
# [block N]              parameters below a path; `*` stands for a whole number
# [class NAME…]          classes with the same answer
#   @ N PATH             a block at a path (`.`: the root)
#   * PATH MEMBER        how many numbers follow a path, by a member of config.json (dots for members of members)
#   KIND PATH SHAPE NAME…  parameters below a path: SHAPE has a dimension for each comma, `-` is open, otherwise
#                        a member of config.json, `2*` or `3*` one, or heads times their length
#     !   must be there, in every number of the path
#     =G  all of one G are there or none, number by number
#     ?   may be there
#   | PATH G H           one of two groups is there, number by number
"""
CLASSES = re.compile(r".*(ForCausalLM|LMHeadModel|ForConditionalGeneration)")
# Set anew by tasks, or left out by loaders that do not need them.
OPTIONAL = re.compile(r"(^|\.)pooler\.")


def container(pattern):
    """(path up to the last number, what follows)"""
    parts = pattern.split(".")
    stars = [index for index, part in enumerate(parts[:-1]) if part in ("*", "expert_*")]
    if not stars:
        return ".", pattern
    return ".".join(parts[: stars[-1] + 1]), ".".join(parts[stars[-1] + 1 :])


def numbers(name):
    return tuple(re.findall(r"(?:^|\.)(?:expert_)?(\d+)(?=\.|$)", name))


def members(config, path=""):
    """{path: (part, attribute)} of everything that config.json states."""
    found = {}
    for name, value in vars(config).items():
        if name.startswith("_"):
            continue
        if isinstance(value, PreTrainedConfig):
            found |= members(value, f"{path}{name}.")
        else:
            found[path + name] = (config, name)
    return found


def values(config):
    return {path: getattr(part, name) for path, (part, name) in members(config).items()}


def changed(config, path, value):
    config = copy.deepcopy(config)
    part, name = members(config)[path]
    setattr(part, name, value)
    return config


class Look:
    """One model: names and shapes of what a checkpoint of it holds."""

    def __init__(self, cls, config):
        model = survey.build(cls, config)
        self.values = values(model.config)
        self.shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters(remove_duplicate=False)}
        self.buffers = set(model.state_dict()) - set(self.shapes)
        tied = model.all_tied_weights_keys or {}
        self.tied = {survey.generalised(name) for name in [*tied, *(model._tied_weights_keys or ())] if not set(name) & set("^$\\[(")}
        self.tied &= {survey.generalised(name) for name in self.shapes}
        ignored = [re.compile(pattern) for pattern in model._keys_to_ignore_on_load_missing or []]
        self.ignored = {survey.generalised(name) for name in self.shapes if any(p.search(name) for p in ignored)}
        self.prefix = model.base_model_prefix
        base = getattr(model, self.prefix, None) if self.prefix else None
        isAlike = base is not None and type(base) is not cls and type(base.config) is type(model.config)
        self.base = type(base).__name__ if isAlike else None
        self.by_pattern = collections.defaultdict(dict)
        for name, shape in self.shapes.items():
            self.by_pattern[survey.generalised(name)][numbers(name)] = shape
        self.counts = collections.defaultdict(set)
        for pattern, found in self.by_pattern.items():
            path = container(pattern)[0]
            if path.count("*") == 1 and path.endswith(".*") and "*" not in container(pattern)[1]:
                self.counts[path[:-2]].update(int(at) for at, in found)


def is_size(path, value):
    name = path.rpartition(".")[2]
    return type(value) is int and value >= 1 and not name.endswith(("_id", "_index")) and name not in variants.LAYER_COUNTS


def looks(cls):
    """(whole, changes by number, unvaried members, others)"""
    base = next(variants.configurations(cls))
    small = variants.shallow(base(), 2)
    first = Look(cls, small)
    varied, stuck = {}, []
    for path, value in values(small).items():
        if not is_size(path, value):
            if type(value) is float:
                stuck.append(value)
            continue
        try:
            double = Look(cls, changed(small, path, 2 * value))
            if double.shapes != first.shapes:
                varied[path] = (double, Look(cls, changed(small, path, 3 * value)))
        except Exception:
            stuck.append(value)
    others = []
    def also(make):
        try:
            others.append(Look(cls, make()))
        except Exception:
            pass
    also(base)
    medium = variants.shallow(base(), 6)
    for make in list(variants.configurations(cls))[1:]:
        also(make)
    for ties in (True, False):
        also(lambda: variants.with_ties(small, ties))
    for path, value in values(medium).items():
        if type(value) is bool:
            also(lambda: changed(medium, path, not value))
        elif value is None and re.search("dim|size|rank|head|inner|hidden|proj|width|bias", path):
            also(lambda: changed(medium, path, 192))
    counts = []
    for path, value in values(small).items():
        if path.rpartition(".")[2] in variants.LAYER_COUNTS and type(value) is int:
            try:
                counts.append(Look(cls, changed(variants.shallow(base(), 4), path, 3)))
            except Exception:
                pass
    counts += [first]
    for layers in (3, 5):
        try:
            counts.append(Look(cls, variants.shallow(base(), layers)))
        except Exception:
            pass
    return first, varied, stuck, others, counts


def value_of(expression, known):
    product = 1
    for word in expression.split("*"):
        factor = int(word) if word.isdigit() else known.get(word)
        if type(factor) is not int:
            return None
        product *= factor
    return product


def expression_of(pattern, axis, first, varied, stuck, every):
    def size(look):
        found = {shape[axis] for shape in look.by_pattern.get(pattern, {}).values() if axis < len(shape)}
        return found.pop() if len(found) == 1 else None

    start = size(first)
    if start is None or start <= 1:
        return "-"
    affecting = [path for path, pair in varied.items() if any(size(look) != start for look in pair)]
    known = first.values
    if len(affecting) == 1:
        factor, rest = divmod(start, known[affecting[0]])
        if rest or not 1 <= factor <= 3 or factor in stuck and factor > 1:
            return "-"
        text = affecting[0] if factor == 1 else f"{factor}*{affecting[0]}"
    elif len(affecting) == 2:
        # Of other products one member may only decide whether the parameter is there.
        if not any("heads" in path for path in affecting):
            return "-"
        text = "*".join(sorted(affecting))
    else:
        return "-"
    for look in every:
        for shape in look.by_pattern.get(pattern, {}).values():
            wanted = value_of(text, look.values)
            if axis >= len(shape) or wanted is not None and wanted != shape[axis]:
                return "-"
    return text


def answered(name):
    try:
        return ask(survey.CLASSES[name])
    except Exception as error:
        return survey.reason(error)


def ask(cls):
    first, varied, stuck, others, counts = looks(cls)
    every = [first, *(look for pair in varied.values() for look in pair), *others, *counts]
    patterns = sorted({pattern for look in every for pattern in look.by_pattern})
    optional = {pattern for look in every for pattern in look.tied | look.ignored}
    optional |= {pattern for pattern in patterns if OPTIONAL.search(pattern) or "*" in container(pattern)[1]}
    buffers = sorted({survey.generalised(name) for look in every for name in look.buffers} - set(patterns))
    # Where each container is there at all, look by look.
    signatures = {}
    for pattern in patterns:
        signature = {(index, at) for index, look in enumerate(every) for at in look.by_pattern.get(pattern, {})}
        signatures[pattern] = frozenset(signature)
    whole = collections.defaultdict(set)
    for pattern in patterns:
        if "*" not in container(pattern)[1]:
            whole[container(pattern)[0]] |= signatures[pattern]
    whole["."] = {(index, ()) for index in range(len(every))}
    # A layer without parameters is one as well, where the stack's other layers have some.
    entries = []
    groups = {}
    for pattern in patterns:
        path, rest = container(pattern)
        if pattern in optional:
            kind = "?"
        elif signatures[pattern] == whole[path]:
            kind = "!"
        elif sum(signatures[p] == signatures[pattern] and container(p)[0] == path and p not in optional for p in patterns) > 1:
            kind = f"={groups.setdefault((path, signatures[pattern]), len(groups))}"
        else:
            kind = "?"
        dimensions = {len(shape) for look in every for shape in look.by_pattern.get(pattern, {}).values()}
        shape = "-"
        if len(dimensions) == 1:
            count = dimensions.pop()
            words = [expression_of(pattern, axis, first, varied, stuck, every) for axis in range(count)]
            shape = ",".join(words) or "-"
            if set(words) == {"-"}:
                shape = "-"
        entries.append((pattern, kind, shape))
    entries += [(pattern, "?", "-") for pattern in buffers]
    choices = [
        (path, number, other)
        for (path, signature), number in groups.items()
        for (below, rest), other in groups.items()
        if path == below and number < other and signature | rest == whole[path] and not signature & rest
    ]
    stacks = {}
    for path in {path for look in counts for path in look.counts}:
        found = [(look.counts.get(path, set()), look.values) for look in counts]
        # A stack that skips numbers does not tell which it needs.
        lengths = [(len(at) if at == set(range(len(at))) else -1, known) for at, known in found]
        fitting = [
            member for member in first.values
            if all(type(known.get(member)) is int and known[member] == length for length, known in lengths)
        ]
        if len(fitting) == 1 and len({length for length, _ in lengths}) > 1:
            stacks[path] = fitting[0]
    return entries, stacks, choices, first.prefix, first.base


def lines_of(entries, stacks, choices):
    grouped = collections.defaultdict(list)
    for pattern, kind, shape in entries:
        path, rest = container(pattern)
        grouped[path, kind, shape].append(rest)
    lines = [f"* {path} {member}" for path, member in sorted(stacks.items())]
    lines += [f"{kind} {path} {shape} {' '.join(sorted(names))}" for (path, kind, shape), names in sorted(grouped.items())]
    return lines + [f"| {path} {number} {other}" for path, number, other in sorted(choices)]


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
        entries, stacks, choices, prefix, base = answer
        inside = [(p[len(prefix) + 1 :], k, s) for p, k, s in entries if prefix and p.startswith(prefix + ".")]
        below = {p[len(prefix) + 1 :]: member for p, member in stacks.items() if prefix and p.startswith(prefix + ".")}
        if not inside:
            classes[name] = lines_of(entries, stacks, choices)
            continue
        nested = [(p[len(prefix) + 1 :], a, b) for p, a, b in choices if p.startswith(prefix + ".")]
        number = blocks.setdefault(tuple(lines_of(inside, below, nested)), len(blocks) + 1)
        rest = [entry for entry in entries if not entry[0].startswith(prefix + ".")]
        kept = {p: member for p, member in stacks.items() if not p.startswith(prefix + ".")}
        outside = [choice for choice in choices if not choice[0].startswith(prefix + ".")]
        classes[name] = [f"@ {number} {prefix}", *lines_of(rest, kept, outside)]
        if base:
            classes.setdefault(base, [f"@ {number} ."])
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
