"""Dimensions of parameters as sums of products of a configuration's numbers."""

import collections
import functools
import itertools
import re

from looks import FACTORS, LABELS, LENGTH, numbers_of, parts


@functools.lru_cache(maxsize=1 << 17)
def factors_of(product):
    """[(whether it divides what stands in front of it, number or member)]"""
    return [(sign == "/", int(word) if word.isdigit() else word) for sign, word in re.findall(r"([*/]?)([^*/]+)", product)]


def product_of(text, known):
    product = 1
    for divides, word in factors_of(text):
        factor = known.get(word) if type(word) is str else word
        if type(factor) is not int or divides and factor == 0:
            return None
        product = product // factor if divides else product * factor
    return product


def value_of(expression, known):
    total = 0
    for text in expression.split("+"):
        product = product_of(text, known)
        if product is None:
            return None
        total += product
    return total


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


# Rows in front of those of the positions.
OFFSETS = (1, 2, 3, 4)


def expressions(members, stuck):
    """Sums of one or two products, each up to four times, that use all members."""
    return made_of(frozenset(members), tuple(factor for factor in FACTORS if factor not in stuck))


@functools.lru_cache(maxsize=32)
def made_of(members, factors):
    factors = ["", *(f"{factor}*" for factor in factors)]
    single = [factor + product for product in products(members) for factor in factors]
    both = [f"{first}+{second}" for first, second in itertools.combinations(single, 2)]
    if len(members) == 1:
        both += [f"{member}+{offset}" for member in members for offset in OFFSETS]
    return [text for text in [*single, *both] if set(re.findall(r"[A-Za-z_][\w.]*", text)) == members]


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
            found[prefix + LABELS].append(str(cls().num_labels))
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
            # Releases that had no such member wrote configurations without it.
            if not needs and not prefix and member.endswith("head_dim"):
                found[member].append(str(value))
            if not 1 <= len(needs) <= 2:
                continue
            lines = [other for name, other in changes if name != member] + [start]
            fitting = [text for text in expressions(needs, ()) if "+" not in text
                       and all(value_of(text, line) == line.get(member) for line in lines)]
            text = shortest(fitting)
            if text:
                found[prefix + member].append(re.sub(r"[A-Za-z_]\w*", lambda word: prefix + word[0], text))
    return found


class Sizes:
    """Dimensions by the configuration."""

    def __init__(self, looks, before=None):
        self.looks = looks
        # What others have found already.
        self.defaults = dict(before.defaults) if before else {}
        self.known = dict(before.known) if before else {id(look): look.values for look in looks.every}
        for member in looks.lengths:
            if member not in self.defaults:
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
            found |= {path for path, look in self.looks.nudged.items()
                      if self.dimension(look, pattern, axis) not in (middle, None)}
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
