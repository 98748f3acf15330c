"""Watches what the weights of a running model are multiplied with, whatever class of module does it.

A product is known by its weight: the address of one of its operands lies within a parameter. So the experts of a
stacked parameter are told from each other, and what is no module of its own (a router, say) is measured like any linear
layer.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from .errors import UNSUPPORTED, Refusal
from .sums import Sums

TENSOR = torch.Tensor
# Where they have their two factors among their arguments. Of x·W each row of x is a token, of W·x each column.
LINEAR = {torch.nn.functional.linear: (0, 1)}
PRODUCTS = {function: (0, 1) for function in (
    torch.matmul, torch.mm, torch.bmm, TENSOR.matmul, TENSOR.mm, TENSOR.bmm, TENSOR.__matmul__,
)} | {TENSOR.__rmatmul__: (1, 0)} | {function: (1, 2) for function in (
    torch.addmm, torch.baddbmm, TENSOR.addmm, TENSOR.baddbmm,
)}  # fmt: skip


class Recorder(TorchFunctionMode):
    """Sums over the inputs of the parameters of one layer, while it is on."""

    def __init__(self, gram: bool) -> None:
        super().__init__()
        self.gram = gram
        self.on = False
        # By the parameter's name, in the order in which they were first called.
        self.sums: dict[str, Sums] = {}
        # Whose sums are a parameter's too, because both are given the same tensor.
        self.leader: dict[str, str] = {}
        self._parameters: list[tuple[int, int, str, torch.Tensor]] = []
        self._starts: list[int] = []
        # Of this forward pass: tensors that were given, kept so that no address is taken twice.
        self._kept: list[torch.Tensor] = []
        self._owners: dict[tuple, tuple[str, int]] = {}
        self._done: set[tuple] = set()

    def watch(self, parameters: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Begins anew, with these parameters."""
        self.sums, self.leader = {}, {}
        found = []
        for name, parameter in parameters:
            if parameter.dim() in (2, 3) and parameter.numel() and parameter.device.type != "meta":
                start = parameter.data_ptr()
                found.append((start, start + parameter.numel() * parameter.element_size(), name, parameter))
        self._parameters = sorted(found, key=lambda entry: entry[0])
        self._starts = [entry[0] for entry in self._parameters]

    def begin(self) -> None:
        """Of another forward pass."""
        self._kept, self._owners, self._done = [], {}, set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.on and (func in PRODUCTS or func in LINEAR):
            values = [*args, *kwargs.values()]
            places = LINEAR.get(func) or PRODUCTS[func]
            if len(values) > max(places):
                self._product(values[places[0]], values[places[1]], linear=func in LINEAR)
        return func(*args, **kwargs)

    def _product(self, left: Any, right: Any, *, linear: bool) -> None:
        if not isinstance(left, torch.Tensor) or not isinstance(right, torch.Tensor):
            return
        found = self._find(right)
        if found is not None:
            self._multiplied(*found, right, left)
        elif not linear and (found := self._find(left)) is not None and right.dim() >= 2:
            self._multiplied(*found, left, right.transpose(-1, -2))

    def _find(self, weight: torch.Tensor) -> tuple[str, torch.Tensor] | None:
        if weight.dim() < 2 or not self._starts or weight.device.type == "meta":
            return None
        address = weight.data_ptr()
        index = bisect.bisect_right(self._starts, address) - 1
        if index < 0 or address >= self._parameters[index][1]:
            return None
        return self._parameters[index][2:]

    def _multiplied(self, name: str, parameter: torch.Tensor, weight: torch.Tensor, given: torch.Tensor) -> None:
        if parameter.dim() == 2:
            self.observe(name, None, 0, given)
        elif weight.dim() == 2:
            offset = weight.data_ptr() - parameter.data_ptr()
            self.observe(name, len(parameter), offset // (parameter.stride(0) * parameter.element_size()), given)
        elif weight.shape[0] == len(parameter) and given.dim() == 3 and given.shape[0] == len(parameter):
            # All experts at once: tokens that are not an expert's are zeros there.
            for expert in range(len(parameter)):
                rows = given[expert]
                self.observe(name, len(parameter), expert, rows[(rows != 0).any(dim=-1)])
        else:
            raise Refusal(UNSUPPORTED, f"{name}: which of its {len(parameter)} matrices is multiplied cannot be told")

    def observe(self, name: str, experts: int | None, expert: int, given: torch.Tensor) -> None:
        """Adds what a parameter is given, [..., inputs], or one of its stacked `experts`, unless it has been added."""
        if not given.numel():
            return
        key = (
            given.data_ptr(), given.numel(), given.shape[-1], given.stride(-1), given.dtype, given._version,
        )  # fmt: skip
        if (name, expert, key) in self._done:
            return
        self._done.add((name, expert, key))
        self._kept.append(given)
        owner, place = self._owners.setdefault(key, (name, expert))
        if name not in self.leader:
            alike = owner == name or (place == expert and self.sums[owner].shape == (experts, given.shape[-1]))
            self.leader[name] = owner if alike else name
        if (leader := self.leader[name]) != name:
            if (leader, expert) != (owner, place):
                raise Refusal(UNSUPPORTED, f"{name} shares its input with {leader}, but not always")
            return
        if name not in self.sums:
            self.sums[name] = Sums(experts, given.shape[-1], given.device, self.gram)
        self.sums[name].add(expert, given.reshape(-1, given.shape[-1]))
