"""A transformers model without weights, which are filled in for one layer at a time.

transformers builds the model and says, by its own rules, which tensors of a checkpoint become which parameter; only the
time at which that happens is another.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch

from ..checkpoint import Checkpoint
from ..errors import CheckpointError, printable
from .causal import build, causal, layers_of, wide
from .origins import Origin, origins


class LayeredModel:
    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype | None) -> None:
        """`dtype` None is the checkpoint's own.

        Raises Refusal for a model that is not causal, has no layers that could be run one by one, or is quantized by
        other means than bitsandbytes' 4 bits.
        """
        self.checkpoint, self.device = checkpoint, device
        architecture = causal(checkpoint)
        self.class_name = architecture.model_class.__name__
        stored = architecture.config.dtype if architecture.dtype in (None, "auto") else architecture.dtype
        self.dtype = dtype or (getattr(torch, stored) if isinstance(stored, str) else stored)
        self.model = build(architecture, self.dtype)
        self.model.eval().requires_grad_(False)
        self.config = self.model.config.get_text_config()
        self.prefix, self.layers = layers_of(self.model, self.config, self.class_name)
        self.head = self.model.get_output_embeddings()
        self.embeddings = self.model.get_input_embeddings()
        names = {module: name for name, module in self.model.named_modules()}
        self.head_weight = f"{names[self.head]}.weight" if self.head is not None else None
        self.embedding_weight = f"{names[self.embeddings]}.weight"
        self.origins, self.unused = origins(checkpoint, self.model)
        # Of those parameters that are in memory: which tensors of the checkpoint each is.
        self.sources: dict[str, Origin] = {}
        self._wide = wide(self.model, self.dtype)
        # Before hours are spent. What is made of parts is known when it is made.
        converters = [origin.converter for origin in self.origins.values() if origin.converter is not None]
        if all(len(converter.target_patterns) == 1 for converter in converters):
            needed = [(name, tensor) for name, tensor in self.model.named_parameters() if name not in self.origins]
            self._complete((name, tensor) for name, tensor in needed if name != self.head_weight)
        for module in self.model.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None and buffer.device.type != "meta":
                    module._buffers[name] = buffer.to(device)

    def layer_name(self, index: int) -> str:
        return f"{self.prefix}.{index}"

    def parameters_of(self, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
        for name, parameter in self.model.get_submodule(prefix).named_parameters():
            yield f"{prefix}.{name}", parameter

    def parameters_outside(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, parameter in self.model.named_parameters():
            if not name.startswith(f"{self.prefix}.") and name != self.head_weight:
                yield name, parameter

    @property
    def is_tied(self) -> bool:
        """Whether the embeddings are also what the last hidden states are multiplied with."""
        return self.head is not None and (
            self.head.weight is self.embeddings.weight or bool(getattr(self.config, "tie_word_embeddings", False)))

    def load_outside(self, used: torch.Tensor) -> None:
        """All that is in no layer; of the embeddings, the rows of the tokens that are `used`."""
        self._load(lambda key: not key.startswith(f"{self.prefix}.") and key != self.head_weight, used)
        self._complete(self.parameters_outside())

    def load_layer(self, index: int) -> None:
        prefix = self.layer_name(index)
        self._load(lambda key: key.startswith(f"{prefix}."), None)
        self._complete(self.parameters_of(prefix))

    def release_layer(self, index: int) -> None:
        layer = self.layers[index]
        for module in layer.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[name] = torch.nn.Parameter(parameter.to("meta"), requires_grad=False)
        prefix = f"{self.layer_name(index)}."
        for key, origin in self.origins.items():
            if key.startswith(prefix):
                self._give_back(origin)

    def _load(self, chosen: Any, used: torch.Tensor | None) -> None:
        for key, origin in self.origins.items():
            if not chosen(key):
                continue
            if origin.converter is None:
                (name,) = next(iter(origin.names.values()))
                if key == self.embedding_weight and used is not None:
                    self._set_embeddings(key, name, used)
                else:
                    self._set(key, self._tensor(name), name)
                self.sources[key] = origin
            else:
                self._convert(key, origin)
            if used is not None:
                self._give_back(origin)

    def _convert(self, key: str, origin: Origin) -> None:
        converter = copy.deepcopy(origin.converter)
        for pattern, names in origin.names.items():
            for name in names:
                # Called when the operation needs it.
                converter.add_tensor(key, name, pattern, lambda name=name: self._tensor(name))
        try:
            made = converter.convert(key, model=self.model, config=self.model.config)
        except (ValueError, RuntimeError, KeyError, IndexError) as error:
            name = next(iter(origin.names.values()))[0]
            raise self._refuse(name, f"transformers makes no '{key}' of it: {error}") from None
        for name, value in made.items():
            self._set(name, value[0] if isinstance(value, list) else value, key)
            self.sources[name] = origin

    def _tensor(self, name: str) -> torch.Tensor:
        tensor = self.checkpoint[name]
        return tensor.torch() if tensor.scheme is None else tensor.dequantize().torch()

    def _set(self, key: str, value: torch.Tensor, name: str) -> None:
        path, _, leaf = key.rpartition(".")
        module = self.model.get_submodule(path)
        expected = getattr(module, leaf)
        if value.shape != expected.shape:
            found, wanted = list(value.shape), list(expected.shape)
            raise self._refuse(name, f"shape {found}, {self.class_name} has {wanted}")
        dtype = torch.float32 if self._wide is not None and self._wide.search(key) else expected.dtype
        value = value.to(self.device, dtype).contiguous()
        if leaf in module._buffers:
            module._buffers[leaf] = value
        else:
            module._parameters[leaf] = torch.nn.Parameter(value, requires_grad=False)

    def _set_embeddings(self, key: str, name: str, used: torch.Tensor) -> None:
        """Memory is taken for the rows that are written."""
        stored = self._tensor(name)
        value = torch.empty(stored.shape, dtype=self.embeddings.weight.dtype, device=self.device)
        if len(used) and int(used[-1]) >= len(stored):
            raise self._refuse(name, f"{len(stored)} rows, and the tokenizer has a token {int(used[-1])}")
        value[used.to(self.device)] = stored[used].to(self.device, value.dtype)
        self._set(key, value, name)

    def _give_back(self, origin: Origin) -> None:
        for names in origin.names.values():
            for name in names:
                self.checkpoint[name].release()

    def _complete(self, parameters: Iterator[tuple[str, torch.Tensor]]) -> None:
        tied = getattr(self.model, "all_tied_weights_keys", {})
        for name, parameter in parameters:
            if parameter.device.type == "meta" and name not in tied:
                raise CheckpointError(
                    f"{self.checkpoint.path}: has no tensor '{name}', which {self.class_name} needs")

    def _refuse(self, name: str, what: str) -> CheckpointError:
        return CheckpointError(f"{self.checkpoint.path}: tensor '{printable(name)}': {what}")
