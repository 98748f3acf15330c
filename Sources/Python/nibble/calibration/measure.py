"""The run: one layer after another, each over all sequences."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from . import memory
from .errors import REJECTED, UNSUPPORTED, Refusal
from .hidden import HiddenStates, Stored, Writer
from .inputs import Inputs
from .model import LayeredModel
from .partial import Partial
from .recorder import Recorder
from .texts import Texts

# Tokens that go through a layer at once: sequences of one length, so that none needs padding.
BATCH, BATCH_OF_GPU = 2048, 8192


class Done(BaseException):
    """Ends a forward pass where nothing more is wanted of it."""


class Measurement:
    """transformers' own forward pass, from the embeddings on, is run for every layer and batch. All layers but the one
    at hand hand on what they are given, and that one takes what the layer before it gave in the last round; so each
    gets the masks, positions and whatever else the model itself hands to it."""

    def __init__(self, model: LayeredModel, texts: Texts, partial: Partial, limit: int, gram: bool) -> None:
        self.model, self.texts, self.partial = model, texts, partial
        self.states = HiddenStates(partial.path, limit)
        self.recorder = Recorder(gram)
        self._layer: Callable[..., Any] | None = None
        self._form: int | None = None
        self._originals = [layer.forward for layer in model.layers]

    def run(self, report: Callable[[int, int, float, int], None]) -> None:
        """Calls `report` after each layer: its index, inputs measured, seconds, layers to go."""
        model, count = self.model, len(self.model.layers)
        if self.partial.done and not self._take_up():
            self.partial.restart()
        used = torch.unique(torch.tensor([token for ids in self.texts.sequences for token in ids]))
        model.load_outside(used)
        for layer in model.layers:
            layer.forward = self._passing
        if model.head is not None:
            model.head.register_forward_pre_hook(self._at_head)
        for index in range(self.partial.done, count + 1):
            started = time.monotonic()
            inputs = self._layer_pass(index) if index < count else self._head_pass()
            report(index, inputs, time.monotonic() - started, count - index)
        self.states.close()

    def _take_up(self) -> bool:
        self._form = self.partial.form
        return self.partial.hidden is not None and self.states.open(self.partial.hidden)

    def _layer_pass(self, index: int) -> int:
        model, layer = self.model, self.model.layers[index]
        model.load_layer(index)
        parameters = list(model.parameters_of(model.layer_name(index)))
        # What comes before the first layer, such as a projection of the embeddings.
        before = list(model.parameters_outside()) if index == 0 else []
        self.recorder.watch([*before, *parameters])
        writer = self.states.replace(f"hidden-{index + 1:05}", self.texts.tokens)
        try:
            for start, ids in self._batches():
                layer.forward = self._taking(index, start, ids, writer)
                self._forward(ids)
            hidden = writer.finish()
        finally:
            writer.abandon()
            layer.forward = self._passing
        inputs = self._finish(index, hidden)
        self.states.drop_old()
        model.release_layer(index)
        memory.give_back()
        return inputs

    def _head_pass(self) -> int:
        """What comes after the last layer."""
        layer = self.model.layers[-1]
        self.recorder.watch(self.model.parameters_outside())
        for start, ids in self._batches():
            layer.forward = self._giving(start, ids)
            self._forward(ids)
        return self._finish(len(self.model.layers), self.states.stored)

    def _finish(self, index: int, hidden: Stored | None) -> int:
        inputs = Inputs(self.model, self.recorder, index)
        for name, sums in self.recorder.sums.items():
            if not sums.is_finite():
                what = f"layer {index}: what '{name}' is multiplied with is not finite"
                raise Refusal(REJECTED, f"{self.model.checkpoint.path}: {what}")
        self.partial.finish_layer(inputs.entries, inputs.about, hidden, self._form)
        return len(inputs.entries)

    def _batches(self) -> Iterator[tuple[int, torch.Tensor]]:
        """The number of the first token, and [sequences, length]."""
        limit = BATCH if self.model.device.type == "cpu" else BATCH_OF_GPU
        sequences, first, token = self.texts.sequences, 0, 0
        while first < len(sequences):
            length = len(sequences[first])
            last = first + 1
            while last < len(sequences) and len(sequences[last]) == length and (last + 1 - first) * length <= limit:
                last += 1
            yield token, torch.tensor(sequences[first:last], device=self.model.device)
            token += (last - first) * length
            first = last

    def _forward(self, ids: torch.Tensor) -> None:
        self.recorder.begin()
        self._layer = None
        try:
            with torch.no_grad(), self.recorder:
                self.recorder.on = self.partial.done == 0
                self.model.model(input_ids=ids, use_cache=False)
        except Done:
            return
        except RuntimeError as error:
            what = f"layer {self.partial.done} of {self.model.class_name} cannot be run"
            raise Refusal(UNSUPPORTED, f"{self.model.checkpoint.path}: {what}: {error}") from error
        finally:
            self.recorder.on = False
        if self.partial.done < len(self.model.layers):
            raise Refusal(UNSUPPORTED, f"{self.model.class_name} leaves a layer out: it cannot be run layer by layer")

    def _taking(self, index: int, start: int, ids: torch.Tensor, writer: Writer) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            given, args, kwargs = taken(args, kwargs)
            if index:
                given = self._rows(start, ids)
            self.recorder.on = True
            result = self._originals[index](given, *args, **kwargs)
            self.recorder.on = False
            hidden, self._form = self._parts(result, ids.shape[1])
            if hidden.shape != given.shape or hidden.shape[:2] != ids.shape:
                raise Refusal(UNSUPPORTED, f"{self.model.class_name}: layers of it give other than hidden states")
            writer.append(hidden.reshape(ids.numel(), -1))
            raise Done

        return forward

    def _giving(self, start: int, ids: torch.Tensor) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            self.recorder.on = True
            return self._given(self._rows(start, ids))

        return forward

    def _rows(self, start: int, ids: torch.Tensor) -> torch.Tensor:
        return self.states.rows(start, start + ids.numel()).view(*ids.shape, -1).to(self.model.device)

    def _passing(self, *args: Any, **kwargs: Any) -> Any:
        return self._given(taken(args, kwargs)[0])

    def _given(self, hidden: torch.Tensor) -> Any:
        """As a layer gives it."""
        return hidden if self._form is None else (hidden, *[None] * (self._form - 1))

    def _parts(self, result: Any, length: int) -> tuple[torch.Tensor, int | None]:
        """The hidden states, and how many results they are the first of, if of several. The others can only be the
        weights of attention, [sequences, heads, length, length], which are for who asks for them."""
        if isinstance(result, torch.Tensor):
            return result, None
        if isinstance(result, tuple) and result and isinstance(result[0], torch.Tensor):
            shapes = [part.shape[1:] for part in result[1:] if isinstance(part, torch.Tensor)]
            if len(shapes) + result.count(None) == len(result) - 1:
                if all(len(shape) == 3 and shape[1:] == (length, length) for shape in shapes):
                    return result[0], len(result)
        what = "its layers give each other more than hidden states: it cannot be run layer by layer"
        raise Refusal(UNSUPPORTED, f"{self.model.class_name}: {what}")

    def _at_head(self, module: torch.nn.Module, given: tuple) -> None:
        if self.model.head_weight is not None:
            self.recorder.observe(self.model.head_weight, None, 0, given[0])
        raise Done


def taken(args: tuple, kwargs: dict[str, Any]) -> tuple[torch.Tensor, tuple, dict[str, Any]]:
    """The hidden states that a layer is called with, and the rest."""
    if args:
        return args[0], args[1:], kwargs
    rest = dict(kwargs)
    return rest.pop("hidden_states"), (), rest
