"""Which tensors of a checkpoint become which parameter of a model, by transformers' own rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..checkpoint import Checkpoint
from ..errors import CheckpointError, printable
from .causal import is_recent


@dataclass
class Origin:
    """The tensors of a checkpoint that become a parameter, or several that begin with it."""

    # By the pattern that chose them, in transformers' order.
    names: dict[str, list[str]] = field(default_factory=dict)
    converter: Any = None


def stored_names(checkpoint: Checkpoint) -> Iterator[str]:
    """All but the statistics of 4-bit weights."""
    packed = {name for name in checkpoint if checkpoint.state_of(name) is not None}
    for name in checkpoint:
        owner = name.rpartition(".")[0]
        if owner not in packed and owner.rpartition(".")[0] not in packed:
            yield name


def origins(checkpoint: Checkpoint, model: Any) -> tuple[dict[str, Origin], list[str]]:
    """By the first parameter that they become, and the names of tensors that become none."""
    state = dict.fromkeys(model.state_dict(), True)
    found: dict[str, Origin] = {}
    unused = []
    names = stored_names(checkpoint)
    if not is_recent():
        prefix = f"{model.base_model_prefix}."
        for name in names:
            key = next((key for key in (name, prefix + name, name.removeprefix(prefix)) if key in state), None)
            if key is None:
                unused.append(name)
            else:
                found[key] = Origin({name: [name]})
        return found, unused
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    by_pattern = {pattern: rule for rule in converters for pattern in rule.source_patterns}
    for name in sorted(names, key=dot_natural_key):
        key, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, state)
        if key not in state and name in state:
            key, pattern = rename_source_key(name, [], [], model.base_model_prefix, state)
        if key not in state:
            unused.append(name)
            continue
        origin = found.setdefault(key, Origin(converter=by_pattern[pattern] if pattern is not None else None))
        origin.names.setdefault(pattern or name, []).append(name)
        if origin.converter is None and len(origin.names) > 1:
            first = printable(next(iter(origin.names)))
            raise CheckpointError(f"{checkpoint.path}: tensors '{first}' and '{printable(name)}' are both '{key}'")
    return found, unused
