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
import copy
import inspect
import itertools
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
    r".*(ForCausalLM|LMHeadModel|ForConditionalGeneration|ForMaskedLM|ForQuestionAnswering|For(Sequence|Token)Classification)"
)
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
    return {path: vars(part)[name] for path, (part, name) in members(config).items()}


def changed(config, path, value):
    config = copy.deepcopy(config)
    variants.assign(config, path, value)
    return config


def has(part, name):
    try:
        return hasattr(part, name)
    except Exception:
        return True  # Not one value, but one for each layer.


def unstated(config):
    """Paths of members that the configuration's class does not have, and its model asks for."""
    for prefix, part in parts(config):
        module = sys.modules.get(type(part).__module__.replace(".configuration_", ".modeling_"))
        source = inspect.getsource(module) if module else ""
        for name in sorted(set(re.findall(r"(?:get|has)attr\((?:self\.)?config, [\"'](\w+)[\"']", source))):
            if SIZES.search(name) and not has(part, name):
                yield prefix + name


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


SIZES = re.compile("dim|size|rank|head|inner|hidden|proj|width")
PERIODS = re.compile(r".*_(step|freq|frequency|interval|period)")
LISTS = re.compile(r".*(_layers|_indices|_idx|_ids)")
LENGTH = 192


class Looks:
    """A class under many configurations."""

    def __init__(self, cls):
        self.cls = cls
        self.base = next(variants.configurations(cls))
        small = self.small = variants.shallow(self.base(), 2)
        self.first = Look(cls, small)
        # By member, what doubling and tripling it make of the model; by one that is null, what two lengths do.
        self.varied, self.lengths = {}, {}
        # Numbers that cannot be changed alone.
        self.stuck = set()
        self.others = []
        # By member, what one more makes of a model of six layers.
        self.middle, self.nudged = self.look(lambda: variants.shallow(self.base(), 6)), {}
        for path, value in [*values(small).items(), *((path, None) for path in unstated(small))]:
            if is_size(path, value):
                self.vary(path, value)
            elif type(value) is float:
                self.stuck.add(value)
            elif value is None and SIZES.search(path):
                pair = [self.look(lambda: changed(small, path, times * LENGTH)) for times in (1, 2)]
                if None not in pair and pair[0].shapes != self.first.shapes:
                    self.lengths[path] = pair
        self.probe()
        self.counts = [self.look(lambda: changed(variants.shallow(self.base(), 4), path, 3))
                       for path, value in values(small).items()
                       if path.rpartition(".")[2] in variants.LAYER_COUNTS and type(value) is int]
        self.counts = [look for look in self.counts if look] + [self.first]
        self.counts += filter(None, (self.look(lambda: variants.shallow(self.base(), layers)) for layers in (3, 5)))
        pairs = [look for pair in [*self.varied.values(), *self.lengths.values()] for look in pair]
        self.every = [self.first, *pairs, *self.nudged.values(), *self.others, *self.counts]

    def look(self, make):
        try:
            return Look(self.cls, make())
        except Exception:
            return None

    def vary(self, path, value):
        double = self.look(lambda: changed(self.small, path, 2 * value))
        if double is None:
            self.stuck.add(value)
        elif double.shapes != self.first.shapes:
            triple = self.look(lambda: changed(self.small, path, 3 * value))
            # What cannot be tripled may be made four times as large.
            triple = triple or self.look(lambda: changed(self.small, path, 4 * value))
            if triple is None:
                self.stuck.add(value)
            else:
                self.varied[path] = (double, triple)

    def probe(self):
        """Which parameters there are."""
        seen = set()
        def also(make):
            try:
                look = Look(self.cls, make())
            except Exception:
                return None
            key = frozenset(look.shapes.items())
            if key not in seen:
                seen.add(key)
                self.others.append(look)
            return look
        also(self.base)
        medium = variants.shallow(self.base(), 6)
        for make in list(variants.configurations(self.cls))[1:]:
            also(make)
        also(lambda: variants.altered(medium, {"is_decoder": True, "add_cross_attention": True}))
        for ties in (True, False):
            also(lambda: variants.with_ties(self.small, ties))
        for path, value in values(medium).items():
            name = path.rpartition(".")[2]
            tries = []
            if type(value) is bool:
                tries = [not value]
            elif type(value) is int and name not in variants.LAYER_COUNTS and not name.endswith(("_id", "_index")):
                tries = [0, value + 1] + ([2, 3] if PERIODS.fullmatch(name) else [])
            elif value is None and (SIZES.search(name) or "bias" in name):
                tries = [LENGTH]
            if LISTS.fullmatch(name) and (value is None or type(value) is list):
                tries = [[], [1], [1, 3]]
            for other in tries:
                look = also(lambda: changed(medium, path, other))
                if look and type(value) is int and other == value + 1:
                    self.nudged[path] = look


def product_of(text, known):
    product = 1
    for sign, word in re.findall(r"([*/]?)([^*/]+)", text):
        factor = int(word) if word.isdigit() else known.get(word)
        if type(factor) is not int or sign == "/" and factor == 0:
            return None
        product = product // factor if sign == "/" else product * factor
    return product


def value_of(expression, known):
    products = [product_of(text, known) for text in expression.split("+")]
    return None if None in products else sum(products)


def complexity(expression):
    return expression.count("*") + expression.count("/") + 2 * expression.count("+")


def products(members):
    """Products and quotients of one, two or three members, the shortest first."""
    members = sorted(members)
    for a in members:
        yield a
    for a, b in itertools.combinations(members, 2):
        yield f"{a}*{b}"
    for a, b in itertools.permutations(members, 2):
        yield f"{a}/{b}"
        # Where the division leaves a rest.
        yield f"{a}/{b}*{b}"
    for a, b, c in itertools.permutations(members, 3):
        yield f"{a}/{b}*{c}"


FACTORS = ("", "2*", "3*", "4*")


def expressions(members, stuck):
    """Sums of one or two products, each up to four times, that use all members."""
    factors = [factor for factor in FACTORS if not factor or int(factor[:-1]) not in stuck]
    single = [factor + product for product in products(members) for factor in factors]
    both = [f"{first}+{second}" for first, second in itertools.combinations(single, 2)]
    for text in [*single, *both]:
        if set(re.findall(r"[A-Za-z_][\w.]*", text)) == set(members):
            yield text


def shortest(candidates):
    """The one that is shorter than all others, or None."""
    ordered = sorted(set(candidates), key=lambda text: (complexity(text), text))
    if not ordered or len(ordered) > 1 and complexity(ordered[0]) == complexity(ordered[1]):
        return None
    return ordered[0]


def defaults_of(config):
    """{member: [size]} of members that are made from others, or have another name, where they are not stated."""
    found = collections.defaultdict(list)
    for prefix, part in parts(config):
        cls = type(part)
        for alias, name in (getattr(cls, "attribute_map", None) or {}).items():
            found[prefix + name].append(prefix + alias)
        try:
            start = numbers_of(cls())
        except Exception:
            continue
        changes = []
        for name, value in start.items():
            for times in (2, 3):
                try:
                    changes.append((name, numbers_of(cls(**{name: times * value}))))
                except Exception:
                    pass
        for member, value in start.items():
            needs = {name for name, other in changes if name != member and other.get(member) != value}
            if not 1 <= len(needs) <= 2:
                continue
            lines = [other for name, other in changes if name != member] + [start]
            fitting = [text for text in expressions(needs, ()) if "+" not in text
                       and all(value_of(text, line) == line.get(member) for line in lines)]
            text = shortest(fitting)
            if text:
                found[prefix + member].append(re.sub(r"[A-Za-z_]\w*", lambda word: prefix + word[0], text))
    return found


def parts(config, prefix=""):
    yield prefix, config
    for name, value in vars(config).items():
        if isinstance(value, survey.PreTrainedConfig) and not name.startswith("_"):
            yield from parts(value, f"{prefix}{name}.")


def numbers_of(config):
    return {name: value for name, value in vars(config).items() if type(value) is int and value >= 1 and name[0] != "_"}


class Sizes:
    """Dimensions by the configuration."""

    def __init__(self, looks):
        self.looks = looks
        self.defaults = {}
        self.known = {id(look): look.values for look in looks.every}
        self.found = {}
        for member in looks.lengths:
            self.find_default(member)

    def dimension(self, look, pattern, axis):
        """Of all layers, None when it is not there, -1 when they differ."""
        found = {shape[axis] for shape in look.by_pattern.get(pattern, {}).values() if axis < len(shape)}
        return None if not found else found.pop() if len(found) == 1 else -1

    def find_default(self, member):
        """What a member that is null stands for: what makes one size of all that it changes."""
        first, (once, twice) = self.looks.first, self.looks.lengths[member]
        candidates, changed = None, []
        for pattern, shapes in first.by_pattern.items():
            for axis in range(len(next(iter(shapes.values())))):
                start = self.dimension(first, pattern, axis)
                pair = [self.dimension(look, pattern, axis) for look in (once, twice)]
                if None in (start, *pair) or -1 in (start, *pair) or pair[0] == start == pair[1]:
                    continue
                if pair[1] != 2 * pair[0] or pair[0] % LENGTH or start % (pair[0] // LENGTH):
                    return
                changed.append((pattern, axis))
                value = start // (pair[0] // LENGTH)
                needs = self.affecting(pattern, axis)
                fitting = {
                    text for size in (1, 2) for members in itertools.combinations(sorted(needs), size)
                    for text in expressions(members, ()) if "+" not in text and value_of(text, first.values) == value}
                candidates = fitting if candidates is None else candidates & fitting
        before = dict(self.known)
        for text in sorted(candidates or (), key=lambda text: (complexity(text), text)):
            self.defaults[member] = text
            for look in self.looks.every:
                known = self.known[id(look)]
                if known.get(member) is None:
                    self.known[id(look)] = known | {member: value_of(text, known)}
            if all(self.size(pattern, axis) not in "-~" for pattern, axis in changed):
                return
            self.known = dict(before)
            del self.defaults[member]

    def affecting(self, pattern, axis):
        # Whether it is there at all is another matter.
        start = self.dimension(self.looks.first, pattern, axis)
        found = {path for path, pair in self.looks.varied.items()
                 if any(self.dimension(look, pattern, axis) not in (start, None) for look in pair)}
        if self.looks.middle:
            # Not by the factors two and three when they leave no rest.
            middle = self.dimension(self.looks.middle, pattern, axis)
            found |= {path for path, look in self.looks.nudged.items() if path in self.looks.varied
                      and self.dimension(look, pattern, axis) not in (middle, None)}
        return found

    def size(self, pattern, axis):
        rows = [(shape[axis], look) for look in self.looks.every
                for shape in set(look.by_pattern.get(pattern, {}).values()) if axis < len(shape)]
        differs = any(self.dimension(look, pattern, axis) == -1 for look in self.looks.every)
        text = None if differs else self.expression(pattern, axis, rows)
        return text or ("~" if differs else "-")

    def expression(self, pattern, axis, rows):
        looks = self.looks
        start = self.dimension(looks.first, pattern, axis)
        if start is None or start <= 1:
            return None
        members = self.affecting(pattern, axis)
        for member, pair in looks.lengths.items():
            if any(self.dimension(look, pattern, axis) not in (start, None) for look in pair):
                if member not in self.defaults:
                    return None
                # What its default is made of may have no say but through it.
                members.add(member)
        rows = [(size, self.known[id(look)]) for size, look in rows]
        known = self.known[id(looks.first)]
        through = {word for member in members & set(self.defaults) for word in re.findall(r"[A-Za-z_][\w.]*", self.defaults[member])}
        subsets = (set(rest) for count in range(len(through) + 1) for rest in itertools.combinations(sorted(through), count))
        for chosen in (members - rest for rest in subsets):
            if not 1 <= len(chosen) <= 4:
                continue
            fitting = []
            for text in expressions(chosen, looks.stuck):
                if value_of(text, known) != start or fitting and complexity(text) > complexity(fitting[0]):
                    continue
                # A quotient below one adds nothing.
                if 0 in (product_of(part, known) for part in text.split("+")):
                    continue
                if all(value_of(text, line) in (None, size) for size, line in rows):
                    fitting.append(text)
            if text := shortest(fitting):
                return text
        return None


def answered(name):
    try:
        return ask(survey.CLASSES[name])
    except Exception as error:
        return survey.reason(error)


def mask_of(pattern, signature, whole):
    """The numbers that a path must have for a parameter to be there, `*` for any; None if they do not tell."""
    positions = list(zip(*(at for _, at in signature)))
    mask = [str(min(at)) if len(set(at)) == 1 else "*" for at in positions]
    fits = lambda at: all(part in ("*", str(number)) for part, number in zip(mask, at))
    inside = {(index, at) for index, at in whole if fits(at)}
    return ".".join(mask) if mask and inside == signature and set(mask) != {"*"} else None


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
