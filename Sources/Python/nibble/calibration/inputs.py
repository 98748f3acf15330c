"""What was measured of a layer, by the names that the checkpoint has for it."""

from __future__ import annotations

from typing import Any

import torch

from .errors import UNSUPPORTED, Refusal
from .model import LayeredModel
from .origins import Origin
from .recorder import Recorder
from .statistics import Entry
from .sums import Sums


class Inputs:
    """`entries` to be written, and `about` them: for each weight of the checkpoint its input and the parameter that it
    became, and the inputs that no token reached."""

    def __init__(self, model: LayeredModel, recorder: Recorder, index: int) -> None:
        self._model, self._recorder = model, recorder
        self.entries: list[Entry] = []
        self.modules: dict[str, str] = {}
        self.parameters: dict[str, str] = {}
        self._named: dict[tuple[str, int | None], str] = {}
        if index < len(model.layers):
            self._add_uncalled(model.layer_name(index))
        for name, leader in recorder.leader.items():
            for expert, weights in self._weights(name):
                self._add(name, leader, expert, weights)
        unreached = [
            f"{entry.name}[{expert}]" if entry.is_stacked else entry.name
            for entry in self.entries for expert in entry.experts if not entry.sums.counts[expert]
        ]  # fmt: skip
        self.about: dict[str, Any] = {
            "modules": self.modules, "parameters": self.parameters, "unreached": unreached,
        }  # fmt: skip

    def _add_uncalled(self, prefix: str) -> None:
        """Linear layers that no token has come to, such as an expert that is a module of its own."""
        for path, module in self._model.model.get_submodule(prefix).named_modules(prefix=prefix):
            name, weight = f"{path}.weight", getattr(module, "weight", None)
            if name in self._recorder.leader or not isinstance(weight, torch.Tensor) or weight.dim() != 2:
                continue
            if isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D":
                width = weight.shape[1] if isinstance(module, torch.nn.Linear) else weight.shape[0]
                self._recorder.leader[name] = name
                self._recorder.sums[name] = Sums(None, width, weight.device, self._recorder.gram)

    def _weights(self, name: str) -> list[tuple[int | None, list[str]]]:
        """The tensors of the checkpoint that are a parameter: of all its matrices, or one after another."""
        if name == self._model.head_weight:
            return [(None, self._head())]
        origin = self._model.sources.get(name)
        if origin is None:
            # Made of nothing in the checkpoint; tied.
            return []
        experts = self._recorder.sums[self._recorder.leader[name]]
        lists = in_order(origin)
        names = [weight for part in lists for weight in part]
        if not experts.is_stacked or len(names) == 1:
            return [(None, names)]
        if any(len(part) != experts.experts for part in lists):
            what = f"which tensor of the checkpoint is which of its {experts.experts} experts cannot be told"
            raise Refusal(UNSUPPORTED, f"{name}: {what}")
        return [(expert, [part[expert] for part in lists]) for expert in range(experts.experts)]

    def _head(self) -> list[str]:
        origins, names = self._model.origins, []
        assert self._model.head_weight is not None
        if self._model.head_weight in origins:
            names += in_order(origins[self._model.head_weight])[0]
        if self._model.is_tied and self._model.embedding_weight in origins:
            names += in_order(origins[self._model.embedding_weight])[0]
        return names

    def _add(self, name: str, leader: str, expert: int | None, weights: list[str]) -> None:
        if not weights:
            return
        place = (leader, expert)
        if place not in self._named:
            # The first that was called.
            self._named[place] = weights[0].removesuffix(".weight")
            self.entries.append(Entry(self._named[place], self._recorder.sums[leader], expert))
        for weight in weights:
            if self.modules.setdefault(weight, self._named[place]) != self._named[place]:
                raise Refusal(UNSUPPORTED, f"{weight}: parts of it are multiplied with different inputs")
            self.parameters[weight] = name


def in_order(origin: Origin) -> list[list[str]]:
    """The names by the pattern that chose them, in the order in which they are put together."""
    patterns = getattr(origin.converter, "source_patterns", ())
    return [origin.names[pattern] for pattern in patterns if pattern in origin.names] or list(origin.names.values())
