"""What PEFT makes of a base and an adapter, and how near to it a merge must come."""

import copy
import dataclasses
import pathlib

import peft
import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from adapters import Row, quiet
from architectures import BF16, F16, F32
from checkpoint import same


@dataclasses.dataclass
class Reference:
    """What PEFT makes of a base and an adapter; everything by the names of the model without the adapter."""

    state: dict[str, torch.Tensor]  # merged
    base: dict[str, torch.Tensor]  # of what is computed, not replaced: the value that the update is added to
    exact: dict[str, torch.Tensor]  # merged in float64
    terms: dict[str, torch.Tensor]  # of what is computed: the sum of the absolute values that make up the update
    updates: dict[str, torch.Tensor]  # of what is rounded twice: the update as PEFT rounds it before it adds it
    scales: dict[str, float]  # of each tensor that has a LoRA
    inputs: dict[str, torch.Tensor]
    unmerged_logits: torch.Tensor
    logits: torch.Tensor


def reference(row: Row, base: pathlib.Path, adapter: pathlib.Path, dtype: torch.dtype | None = None,
              safe: bool = False, exact: bool = False) -> Reference:
    """What `merge_and_unload` makes of a base and an adapter that are loaded as a user would."""
    model = row.load_base(base, dtype)
    with quiet():
        model = peft.PeftModel.from_pretrained(model, adapter)
    return merged(row, model, safe=safe, exact=exact)


def merged(row: Row, model: peft.PeftModel, safe: bool = False, exact: bool = False) -> Reference:
    """PEFT's merge, of modules that share no storage; in float64 too when it is float32, or when asked for.

    Where two modules have one weight between them, be it a tied head or a replicated layer, PEFT merges both of
    their adapters in place into that one storage, and the merged model is not the unmerged one any more. Given a
    storage of its own for each module, what PEFT computes for a module is what that module was trained as. A tie
    that outlives the merge is put back.
    """
    adapter = model.active_adapter
    inputs = row.case.example(model.config, model.dtype)
    unmerged = logits(model.eval(), inputs)
    base = model.get_base_model()
    ties = base._tied_weights_keys or {} if base.config.tie_word_embeddings and not row.unties else {}
    separate_storages(model)

    before, terms, updates, scales, precise = {}, {}, {}, {}, None
    for name, module in lora_modules(model).items():
        if adapter in module.scaling:
            before[name], scales[name] = lora_parameter(module).clone(), module.scaling[adapter]
            if model.dtype != F32 and (safe or hasattr(module, "parameter_name")) and not module.lora_variant:
                updates[name] = module.get_delta_weight(adapter).detach().to(model.dtype)
            if module.lora_bias[adapter]:
                before[name.removesuffix("weight") + "bias"] = module.get_base_layer().bias.detach().clone()
    if exact or model.dtype == F32:
        precise = copy.deepcopy(model).double()
        terms = {name: module.get_delta_weight(adapter).detach()
                 for name, module in lora_modules(absolute(precise)).items() if name in scales and model.dtype == F32}
    with quiet():
        model = model.merge_and_unload(safe_merge=safe)
        doubled = precise.merge_and_unload().state_dict() if precise else {}

    result = Reference(
        state=model.state_dict(), base=before, exact=doubled, terms=terms, updates=updates, scales=scales,
        inputs=inputs, unmerged_logits=unmerged, logits=logits(model, inputs),
    )
    assert all(same(before[name] + update, result.state[name]) for name, update in updates.items())
    for name, origin in ties.items():
        for tensors in (result.state, result.base, result.exact, result.terms, result.updates):
            if origin in tensors:
                tensors[name] = tensors[origin]
    return result


def separate_storages(model: nn.Module) -> None:
    seen = set()
    for module in list(model.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.data_ptr() in seen:
                setattr(module, name, nn.Parameter(parameter.detach().clone(), requires_grad=False))
            seen.add(parameter.data_ptr())


def lora_modules(model: peft.PeftModel) -> dict[str, LoraLayer]:
    """By the name, without the adapter, of the tensor that each of them changes."""
    return {
        f"{name.replace('.base_layer', '')}.{getattr(module, 'parameter_name', 'weight')}": module
        for name, module in model.get_base_model().named_modules() if isinstance(module, LoraLayer)
    }


def lora_parameter(module: LoraLayer) -> torch.Tensor:
    return getattr(module.get_base_layer(), getattr(module, "parameter_name", "weight")).detach()


def absolute(model: nn.Module) -> nn.Module:
    """A copy whose LoRA factors are all positive: its updates bound the terms of the model's own."""
    model = copy.deepcopy(model)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.abs_()
    return model


@torch.no_grad()
def logits(model: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**inputs).logits.clone()


# --- how near is near enough ----------------------------------------------------------------------------------------

# Of what is computed in 16 bits, how much must be bit-equal to PEFT's: both round a float32 sum, and only a sum that
# lies within float32's own error of the middle between two numbers may go the other way.
EQUAL_SHARE = 0.999
# The rest may be so many units in the last place of the largest operand away. In float32 nothing is said of bits:
# sums of another order differ in the last ones. PEFT itself is up to 2.7 units from the exact merge, with DoRA 3.6.
UNITS = {BF16: 1, F16: 1, F32: 4}
# Merged against unmerged, PEFT alone: at most 0.011, 0.0016 and 4.2e-7 over all rows.
LOGIT_ERROR = {BF16: 2e-2, F16: 3e-3, F32: 1e-6}


def unit(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The distance between neighbours of `dtype` at each value, in float64."""
    limits = torch.finfo(dtype)
    normal = values.double().abs().clamp(min=limits.smallest_normal)
    _, exponent = torch.frexp(normal)
    return torch.exp2((exponent - 1).double()) * limits.eps


def differing(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Where two tensors of one dtype do not have the same bits."""
    integer = torch.int32 if a.dtype == F32 else torch.int16
    return a.contiguous().view(integer) != b.contiguous().view(integer)


def check_tensors(mine: dict, expected: Reference, rounded: dict | None = None) -> None:
    """Every tensor of a merged model against PEFT's: replaced and untouched ones bit for bit.

    What is computed in 16 bits is compared with PEFT's own result, or with `rounded`; in float32, with the exact one.
    """
    assert set(mine) == set(expected.state), set(mine) ^ set(expected.state)
    elements = equal = 0
    for name, theirs in expected.state.items():
        tensor = mine[name]
        assert (tensor.dtype, tensor.shape) == (theirs.dtype, theirs.shape), f"{name}: {tensor.dtype} {tensor.shape}"
        if name not in expected.base:
            assert same(tensor, theirs), f"{name} is not computed, and differs"
            continue
        if tensor.dtype == F32:
            target, wrong = expected.exact[name], torch.ones_like(tensor, dtype=torch.bool)
        else:
            target = theirs if rounded is None else rounded[name]
            wrong = differing(tensor, target)
            elements, equal = elements + wrong.numel(), equal + int((~wrong).sum())
        if name in expected.updates and rounded is None:
            check_rounded_twice(name, tensor, expected)
        else:
            check_distance(name, tensor, target, expected, wrong)
    assert equal >= EQUAL_SHARE * elements, f"{elements - equal} of {elements} elements differ"


def check_distance(name: str, tensor: torch.Tensor, target: torch.Tensor, expected: Reference,
                   wrong: torch.Tensor) -> None:
    """That no element, where `wrong`, is farther off than rounding explains."""
    distance = (tensor.double() - target.double()).abs() / unit(largest_operand(name, target, expected), tensor.dtype)
    far = wrong & ~(distance <= UNITS[tensor.dtype])
    assert not far.any(), (
        f"{name}: {int(far.sum())} of {far.numel()} elements are off, the worst by {distance[far].max():.1f} units"
    )


def check_rounded_twice(name: str, tensor: torch.Tensor, expected: Reference) -> None:
    """That every element is the base plus PEFT's rounded update or one of that one's neighbours, rounded.

    Two float32 sums that lie on the two sides of the middle round to neighbours. The base is added to either, and where
    that lies in a middle too, ties go to even: one may go down and the other up, and the results are two units apart.
    """
    before, update = expected.base[name], expected.updates[name]
    far = differing(tensor, expected.state[name])
    for infinity in (-torch.inf, torch.inf):
        neighbour = torch.nextafter(update, torch.full_like(update, infinity))
        far &= differing(tensor, before + neighbour)
    assert not far.any(), f"{name}: {int(far.sum())} of {far.numel()} elements are of another update than PEFT's"


def largest_operand(name: str, target: torch.Tensor, expected: Reference) -> torch.Tensor:
    """Of each element: the base, the update, the result; and what the update is the sum of, where that is known."""
    before, target = expected.base[name].double(), target.double()
    operands = [before.abs(), target.abs(), (target - before).abs()]
    if name in expected.terms:
        operands.append(expected.terms[name])
    return torch.stack(operands).amax(0)
