"""Which parameters must be there."""

import collections
import itertools
import re

import variants
from looks import container

# Set anew by tasks, or left out by loaders that do not need them.
OPTIONAL = re.compile(r"(^|\.)pooler\.")
# Heads that stand on one, and were saved with it.
POOLED = re.compile(r".*For(SequenceClassification|MultipleChoice|NextSentencePrediction|PreTraining)")
# Loaders make them anew.
REMADE = re.compile(r".*(inv_freq|position_ids|masked_bias|num_batches_tracked|attn\.bias|attention\.bias)")


def mask_of(pattern, signature, whole):
    """The numbers that a path must have for a parameter to be there, `*` for any; None if they do not tell.

    Only of parts within a layer, and of all but the first: which layers are of which kind, a configuration may say
    anew.
    """
    if len(next(iter(signature))[1]) == 1:
        # Nothing comes in front of the first layer.
        return "1+" if signature == {(index, at) for index, at in whole if at != ("0",)} else None
    positions = list(zip(*(at for _, at in signature)))
    mask = [str(min(at)) if len(set(at)) == 1 else "*" for at in positions]
    fits = lambda at: all(part in ("*", str(number)) for part, number in zip(mask, at))
    inside = {(index, at) for index, at in whole if fits(at)}
    return ".".join(mask) if inside == signature and set(mask) != {"*"} else None


class Presence:
    """Of each parameter, whether it must be there."""

    def __init__(self, looks):
        every = looks.every
        self.patterns = sorted({pattern for look in every for pattern in look.by_pattern})
        self.optional = {pattern for look in every for pattern in look.tied | look.ignored}
        isPooled = POOLED.fullmatch(looks.cls.__name__)
        self.optional |= {
            p for p in self.patterns if OPTIONAL.search(p) and not isPooled or "*" in container(p)[1]}
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
        self.anchored = []
        # Where a model's parts are of any class, a third form may be one of another's.
        if not any(re.fullmatch(classes, looks.cls.__name__) for classes, *_ in variants.PARTS):
            self.anchor_choices()
        for pattern in self.patterns:
            if self.kinds[pattern] in ("+", "?") and pattern not in self.optional:
                self.kinds[pattern] = self.beside(pattern, self.signatures[pattern]) or self.kinds[pattern]
        for pattern in {pattern for look in every for pattern in look.buffers} - set(self.patterns):
            found = frozenset((index, at) for index, look in enumerate(every) for at in look.buffers.get(pattern, ()))
            isRemade = REMADE.fullmatch(pattern) or "*" in container(pattern)[1] or pattern in self.optional
            self.kinds[pattern] = not isRemade and self.beside(pattern, found) or "?"

    def alike(self, pattern):
        return self.alike_in(container(pattern)[0])

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

    def beside(self, pattern, signature):
        """Of one that its module may have or not: where the module is, or nowhere."""
        path = container(pattern)[0]
        if path == ".":
            return None
        within = {index for index, _ in signature}
        for other in self.patterns:
            if other.rpartition(".")[0] != pattern.rpartition(".")[0] or other in self.optional or other == pattern:
                continue
            kind, theirs = self.kinds[other], self.signatures[other]
            if kind[0] in "!=" and kind[-1] != "?" and {(i, at) for i, at in theirs if i in within} == signature:
                return (kind if kind[0] == "!" else f">{kind[1:]}") + "?"
        return None

    def anchor_choices(self):
        """Where a part takes one of two forms, a third parameter is beside either: it tells where that is."""
        for path in sorted({container(pattern)[0] for pattern in self.patterns} - {"."}):
            members = [p for p in self.alike_in(path) if not p.endswith("bias")]
            modules = collections.defaultdict(set)
            for member in members:
                modules[self.signatures[member]].add(container(member)[1].split(".")[0])
            forms = {self.signatures[p] for p in members if self.kinds[p][0] in "+?="}
            for one, other in itertools.combinations(sorted(forms, key=sorted), 2):
                shared = modules[one] & modules[other]
                beside = [p for p in members if self.signatures[p] == one | other and container(p)[1].split(".")[0] in shared]
                isEach = one | other == self.whole[path]
                if one & other or not shared or not beside and not isEach:
                    continue
                for member in members:
                    if self.signatures[member] in (one, other):
                        self.kinds[member] = f"={self.group(member)}"
                groups = sorted(self.groups[path, signature] for signature in (one, other))
                if not isEach:
                    self.anchored.append((path, *groups, container(beside[0])[1]))

    def alike_in(self, path):
        return [p for p in self.patterns if container(p)[0] == path and p not in self.optional]

    def choices(self):
        return self.anchored + [
            (path, number, other)
            for (path, signature), number in self.groups.items()
            for (below, rest), other in self.groups.items()
            if path == below and number < other and signature | rest == self.whole[path] and not signature & rest
        ]


