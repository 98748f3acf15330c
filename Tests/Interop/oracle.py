"""bitsandbytes' own quantization, and what Nibble's must have in common with it."""

import json
import pathlib
from unittest import mock

import torch
from bitsandbytes import functional
from bitsandbytes.nn import Params4bit
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

import checkpoint
from checkpoint import FourBit, same, ulps

# torch's mean has no defined order of summation; see the contract in design.
MAXIMUM_OFFSET_ULPS = 4
MAXIMUM_RELATIVE_LOGIT_ERROR = 2e-3


def bitsandbytes_config(kind: str = "nf4", double: bool = True, **other) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=torch.bfloat16,
        **other,
    )


def transposed_modules(model: PreTrainedModel) -> set[str]:
    """Weights of Conv1D modules, stored [in, out] but quantized [out, in]."""
    return {
        f"{name}.weight"
        for name, module in model.named_modules()
        if getattr(module, "source_cls", type(module)) is Conv1D
    }


def dynamic_map(fused: bool) -> torch.Tensor:
    """What bitsandbytes' create_dynamic_map() is on a processor that multiplies and adds at once, or does not: torch's
    linspace, which it is made with, does as the processor can. Computed here in float64, which holds such a product."""
    def linspace(start, end, count, dtype):
        assert dtype == torch.float32
        start, end = (torch.tensor(value, dtype=dtype) for value in (start, end))
        step, index = (end - start) / (count - 1), torch.arange(count)
        at_start = index < count // 2
        product = torch.where(at_start, index, index - (count - 1)).double() * step.double()
        return (torch.where(at_start, start, end).double() + (product if fused else product.float().double())).float()

    with mock.patch.object(functional.torch, "linspace", linspace):
        return functional.create_dynamic_map()


def take_one_map() -> None:
    """bitsandbytes' map of 8-bit codes, whatever kernels torch was told to take, is that of a processor with FMA."""
    fused, own = dynamic_map(fused=True), functional.create_dynamic_map()
    assert same(own, fused) or same(own, dynamic_map(fused=False))
    functional.name2qmap["dynamic"] = fused


def check_weight(name: str, mine: FourBit, source: torch.Tensor, kind="nf4", block_size=64, double=True) -> None:
    """One quantized weight against bitsandbytes' functional interface, bit for bit given the offset."""
    packed, state = functional.quantize_4bit(source.contiguous(), blocksize=block_size, quant_type=kind)
    count = source.numel()
    assert mine.kind == kind, name
    assert list(mine.packed.shape) == [(count + 1) // 2, 1], name
    assert torch.equal(mine.packed.flatten(), packed.flatten()), f"{name}: codes differ"
    assert same(mine.parts["quant_map"], state.code), name

    expected = {
        "quant_type": kind, "blocksize": block_size,
        "dtype": str(source.dtype).removeprefix("torch."), "shape": list(source.shape),
    }
    if double:
        assert ulps(mine.offset, state.absmax.mean()) <= MAXIMUM_OFFSET_ULPS, name
        codes, nested = functional.quantize_blockwise(state.absmax - mine.offset, blocksize=256)
        assert same(mine.parts["absmax"], codes), f"{name}: nested codes differ"
        assert same(mine.parts["nested_absmax"], nested.absmax), f"{name}: nested absmax differs"
        assert same(mine.parts["nested_quant_map"], nested.code), name
        expected |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": mine.offset.item()}
        assert len(mine.parts) == 4, (name, sorted(mine.parts))
    else:
        assert same(mine.parts["absmax"], state.absmax), f"{name}: absmax differs"
        assert len(mine.parts) == 2, (name, sorted(mine.parts))
    assert mine.text == json.dumps(expected), name


def check_checkpoint(out: pathlib.Path, source: pathlib.Path, transposed: set[str] = frozenset(), **scheme) -> int:
    """Every tensor of `out` is either the source's, or its quantization by bitsandbytes; how many of those."""
    mine, original = checkpoint.tensors(out), checkpoint.tensors(source)
    weights = checkpoint.four_bit_weights(mine)
    assert {name for name in mine if not checkpoint.is_companion(name)} == set(original)
    for name, tensor in original.items():
        if name in weights:
            check_weight(name, weights[name], tensor.T if name in transposed else tensor, **scheme)
        else:
            # What the class computes with in float32 is stored so, as bitsandbytes' own checkpoint has it.
            is_widened = mine[name].dtype == torch.float32 and tensor.dtype == torch.float16
            assert same(mine[name], tensor.float() if is_widened else tensor), f"{name} was not kept as it is"
    return len(weights)


def check_saved_alike(out: pathlib.Path, reference: pathlib.Path) -> None:
    """Nibble's files against those that `save_pretrained` wrote of the model bitsandbytes quantized."""
    mine, theirs = checkpoint.tensors(out), checkpoint.tensors(reference)
    assert set(mine) == set(theirs)
    my_weights, their_weights = checkpoint.four_bit_weights(mine), checkpoint.four_bit_weights(theirs)
    for name, weight in my_weights.items():
        other = their_weights[name]
        assert same(weight.packed, other.packed), name
        same_offset = weight.state.get("nested_offset") == other.state.get("nested_offset")
        for part, tensor in weight.parts.items():
            # An offset some ulps away may move these two; check_weight holds them to the offset in the file.
            if same_offset or part not in ("absmax", "nested_absmax"):
                assert same(tensor, other.parts[part]), f"{name}.{part}"
        if same_offset:
            assert weight.text == other.text, name
    for name in [name for name in mine if name not in my_weights and not checkpoint.is_companion(name)]:
        assert same(widened_like(mine[name], theirs[name]), theirs[name]), name
    check_config(checkpoint.config(out), checkpoint.config(reference))


def widened_like(mine: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """A vector that the class keeps in float32 stays in the source's dtype on disk; weights must agree in dtype too."""
    return mine.to(theirs.dtype) if mine.ndim == 1 and theirs.dtype == torch.float32 else mine


def check_config(mine: dict, theirs: dict) -> None:
    """The skip list is the one thing that Nibble writes out and bitsandbytes leaves to the loader."""
    mine, theirs = dict(mine["quantization_config"]), dict(theirs["quantization_config"])
    assert isinstance(mine.pop("llm_int8_skip_modules"), list)
    theirs.pop("llm_int8_skip_modules")
    assert mine == theirs


def check_loaded_alike(mine: PreTrainedModel, theirs: PreTrainedModel) -> int:
    """Parameter by parameter in memory; returns how many are quantized."""
    my_parameters = dict(mine.named_parameters(remove_duplicate=False))
    their_parameters = dict(theirs.named_parameters(remove_duplicate=False))
    assert set(my_parameters) == set(their_parameters)
    quantized = 0
    for name, parameter in my_parameters.items():
        other = their_parameters[name]
        assert type(parameter) is type(other), f"{name}: {type(parameter).__name__}, {type(other).__name__}"
        assert same(widened_like(parameter.data, other.data), other.data), f"{name} differs"
        if isinstance(parameter, Params4bit):
            quantized += 1
            state, expected = parameter.quant_state, other.quant_state
            for field in ("shape", "dtype", "blocksize", "quant_type", "nested"):
                assert getattr(state, field) == getattr(expected, field), f"{name}: {field}"
    for name, buffer in mine.named_buffers():
        assert same(buffer, theirs.get_buffer(name)), name
    return quantized


def check_identical(mine: PreTrainedModel, theirs: PreTrainedModel) -> int:
    """Two models of one checkpoint: every parameter, buffer and quantization statistic; how many are quantized."""
    assert type(mine) is type(theirs) and mine.config.to_dict() == theirs.config.to_dict()
    pairs = dict(theirs.named_parameters(remove_duplicate=False)) | dict(theirs.named_buffers(remove_duplicate=False))
    found = dict(mine.named_parameters(remove_duplicate=False)) | dict(mine.named_buffers(remove_duplicate=False))
    assert found.keys() == pairs.keys()
    quantized = 0
    for name, value in found.items():
        other = pairs[name]
        assert type(value) is type(other) and value.requires_grad == other.requires_grad, name
        assert same(value.data, other.data), name
        if isinstance(value, Params4bit):
            quantized += 1
            state, expected = value.quant_state.as_dict(packed=True), other.quant_state.as_dict(packed=True)
            assert state.keys() == expected.keys(), name
            assert all(same(part, expected[key]) for key, part in state.items()), name
            assert (value.blocksize, value.quant_type, value.bnb_quantized, value.quant_storage) == (
                other.blocksize, other.quant_type, other.bnb_quantized, other.quant_storage
            ), name
    tied = {name: id(value) for name, value in found.items()}
    expected = {name: id(value) for name, value in pairs.items()}
    for name in found:
        assert {other for other in tied if tied[other] == tied[name]} == {
            other for other in expected if expected[other] == expected[name]
        }, f"{name} is tied otherwise"
    return quantized


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.double(), b.double()
    return ((a - b).norm() / b.norm()).item()
