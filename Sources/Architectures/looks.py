"""Looks at a model class under many configurations."""

import collections
import copy
import inspect
import re
import sys

import torch
from transformers import PreTrainedConfig

import survey
import variants


# Parameters on the meta device need no values, and setting them is half the time.
for name in ("normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "xavier_uniform_", "constant_", "ones_", "zeros_"):
    setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor)

# How many entries `id2label` has.
LABELS = "num_labels"


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
        elif name == "id2label":
            found[path + LABELS] = (config, LABELS)
        else:
            found[path + name] = (config, name)
    return found


def values(config):
    return {path: getattr(part, name) if name == LABELS else vars(part)[name]
            for path, (part, name) in members(config).items()}


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
        self.config = copy.deepcopy(config)
        model = survey.build(cls, config)
        self.values = values(model.config)
        self.shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters(remove_duplicate=False)}
        self.buffers = collections.defaultdict(dict)
        for name, buffer in model.state_dict().items():
            if name not in self.shapes and isinstance(buffer, torch.Tensor):
                self.buffers[survey.generalised(name)][numbers(name)] = tuple(buffer.shape)
        tied = model.all_tied_weights_keys or {}
        self.tied = {survey.generalised(name) for name in [*tied, *(model._tied_weights_keys or ())] if not set(name) & set("^$\\[(")}
        self.tied &= {survey.generalised(name) for name in self.shapes}
        ignored = [re.compile(pattern) for pattern in model._keys_to_ignore_on_load_missing or []]
        self.ignored = {survey.generalised(name) for name in model.state_dict() if any(p.search(name) for p in ignored)}
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
# What a size may have as a factor.
FACTORS = (2, 3, 4)


class Variation:
    """A configuration, and what each of its numbers makes of the model."""

    def __init__(self, cls, config, middle):
        self.cls, self.small = cls, config
        self.first = Look(cls, config)
        # By member, what doubling and tripling it make of the model; by one that is null, what two lengths do.
        self.varied, self.lengths = {}, {}
        # Numbers that cannot be changed alone.
        self.stuck = set()
        # By member, what one more makes of the model of `middle`.
        self.middle, self.nudged = middle, {}
        for path, value in [*values(config).items(), *((path, None) for path in unstated(config))]:
            if is_size(path, value):
                self.vary(path, value)
            elif type(value) is float:
                self.vary_float(path, value)
            elif value is None and SIZES.search(path):
                pair = [self.look(lambda: changed(config, path, times * LENGTH)) for times in (1, 2)]
                if None not in pair and pair[0].shapes != self.first.shapes:
                    self.lengths[path] = pair

    def vary_float(self, path, value):
        """Whether a number that is not whole, such as a ratio, has a part in a size."""
        if value in FACTORS:
            double = self.look(lambda: changed(self.small, path, 2 * value))
            if double and double.shapes == self.first.shapes:
                return
        self.stuck.add(value)

    @property
    def own(self):
        pairs = [look for pair in [*self.varied.values(), *self.lengths.values()] for look in pair]
        return [self.first, *pairs, *self.nudged.values()]

    def look(self, make):
        try:
            return Look(self.cls, make())
        except Exception:
            return None

    def vary(self, path, value):
        double = self.look(lambda: changed(self.small, path, 2 * value))
        if double is None:
            # As many labels as there are sides to a question are no number of the others.
            if path.rpartition(".")[2] != LABELS:
                self.stuck.add(value)
        elif double.shapes != self.first.shapes:
            triple = self.look(lambda: changed(self.small, path, 3 * value))
            # What cannot be tripled may be made four times as large.
            triple = triple or self.look(lambda: changed(self.small, path, 4 * value))
            if triple is None:
                self.stuck.add(value)
            else:
                self.varied[path] = (double, triple)


class Looks(Variation):
    """A class under many configurations."""

    def __init__(self, cls):
        self.base = next(variants.configurations(cls))
        self.cls = cls
        super().__init__(cls, variants.shallow(self.base(), 2), self.look(lambda: variants.shallow(self.base(), 6)))
        self.others = []
        self.probe()
        self.counts = [self.look(lambda: changed(variants.shallow(self.base(), 4), path, 3))
                       for path, value in values(self.small).items()
                       if path.rpartition(".")[2] in variants.LAYER_COUNTS and type(value) is int]
        self.counts = [look for look in self.counts if look] + [self.first]
        self.counts += filter(None, (self.look(lambda: variants.shallow(self.base(), layers)) for layers in (3, 5)))
        self.every = [*self.own, *self.others, *self.counts]
        self.further = []
        self.vary_further()

    def vary_further(self):
        """Numbers change what the first configuration does not have, too: layers of other kinds, gates, norms."""
        missing = {pattern for look in self.every for pattern in look.by_pattern} - set(self.first.by_pattern)
        ranked = lambda look: len(missing & set(look.by_pattern))
        while any(not pattern.endswith("bias") for pattern in missing) and len(self.further) < 3:
            best = max(self.every, key=ranked)
            found = missing & set(best.by_pattern)
            missing -= found
            if all(pattern.endswith("bias") for pattern in found):
                continue
            smaller = (self.look(lambda: variants.shallow(best.config, layers)) for layers in (2, 3, 4, 6))
            small = next((look for look in smaller if look and found <= set(look.by_pattern)), best)
            other = Variation(self.cls, small.config, small)
            for path in other.varied:
                one_more = other.look(lambda: changed(small.config, path, values(small.config)[path] + 1))
                if one_more:
                    other.nudged[path] = one_more
            self.further.append(other)
        self.every += [look for other in self.further for look in other.own]
        for other in self.further:
            other.every = self.every

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
        if "relative_attention" in vars(medium):
            # DeBERTa's configuration has no such member until a file states it.
            also(lambda: changed(changed(medium, "relative_attention", True), "norm_rel_ebd", "layer_norm"))
        for ties in (True, False):
            also(lambda: variants.with_ties(self.small, ties))
        for path, value in values(medium).items():
            name = path.rpartition(".")[2]
            tries = []
            if type(value) is bool:
                tries = [not value]
            elif type(value) is int and name not in variants.LAYER_COUNTS and not name.endswith(("_id", "_index")):
                tries = ([0] if name != LABELS else []) + [value + 1] + ([2, 3] if PERIODS.fullmatch(name) else [])
            elif name == "pad_token_id" and type(value) is int:
                tries = [value + 1]
            elif value is None and (SIZES.search(name) or "bias" in name):
                tries = [LENGTH]
            if LISTS.fullmatch(name) and (value is None or type(value) is list):
                tries = [[], [1], [1, 3]]
            for other in tries:
                look = also(lambda: changed(medium, path, other))
                if look and type(value) is int and other == value + 1:
                    self.nudged[path] = look


def parts(config, prefix=""):
    yield prefix, config
    for name, value in vars(config).items():
        if isinstance(value, PreTrainedConfig) and not name.startswith("_"):
            yield from parts(value, f"{prefix}{name}.")


def numbers_of(config):
    return {name: value for name, value in vars(config).items() if type(value) is int and value >= 1 and name[0] != "_"}
