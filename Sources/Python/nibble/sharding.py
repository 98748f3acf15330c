"""`nibble.load(…, mesh=…)`: one model over many ranks, of which each reads its own part.

The model is built as on one device, but from tensors that have a shape and no memory. Each of them has a storage of its
own, so that afterwards every parameter and quantization statistic shows which tensor of the checkpoint it came from;
a model whose weights are converted while they are loaded (experts that are stacked) shows none, and is refused. Then
parameters move to the meta device, layers are wrapped by `fully_shard`, and what each rank is to hold is filled in.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
import transformers
from bitsandbytes.nn import Linear4bit
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from . import model as models
from .checkpoint import TORCH, Checkpoint
from .errors import CheckpointError
from .exchange import Exchange, Wanted, assign

# Tensors are exchanged in batches of about this many bytes.
BATCH = 64 << 20


class Placeholder:
    """A tensor's shape without its values, for whoever asks for it, in whatever dtype."""

    def __init__(self, tensor, names: dict[int, tuple]):
        self.shape, self.get_shape, self.get_dtype = tensor.shape, tensor.get_shape, tensor.get_dtype
        self.dtype = getattr(torch, TORCH[tensor.dtype])
        self._name, self._names = tensor.name, names

    def __getitem__(self, index) -> "Placeholder":
        return self

    def to(self, device=None, dtype=None) -> torch.Tensor:
        """One element, repeated: as many as the shape has, in the memory of one."""
        one = torch.empty(1, dtype=dtype or self.dtype)
        # Kept, so that no other storage ever lies at its address.
        self._names[one.untyped_storage().data_ptr()] = (self._name, one)
        return one.expand(tuple(self.shape)) if self.shape else one.view(())


class Placeholders:
    """Those of a checkpoint, and which tensor a storage that came of them belongs to."""

    def __init__(self, checkpoint: Checkpoint):
        self._names: dict[int, tuple[str, torch.Tensor]] = {}
        # The JSON that bitsandbytes reads to know what the rest is comes as it is.
        self.tensors = {
            name: tensor.torch() if ".quant_state." in name else Placeholder(tensor, self._names)
            for name, tensor in checkpoint.items()
        }

    def has(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self._names

    def name(self, tensor: torch.Tensor, place: str) -> str:
        if not self.has(tensor):
            raise converted(f"'{place}' is not a tensor of the checkpoint as it is")
        return self._names[tensor.untyped_storage().data_ptr()][0]


def converted(what: str) -> CheckpointError:
    return CheckpointError(
        f"{what}: this model converts its weights while it loads them and cannot be loaded in parts; "
        "load it without a mesh"
    )


def check_conversion(checkpoint: Checkpoint, options: dict) -> None:
    """Refuses models that stack experts and the like before that is done to placeholders, which takes real memory."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping
    from transformers.core_model_loading import WeightConverter

    kind = models.configuration(checkpoint, options).model_type
    if any(isinstance(rule, WeightConverter) for rule in get_checkpoint_conversion_mapping(kind) or ()):
        raise converted(f"{checkpoint.path}: {kind}")


def load_on_mesh(path, mesh, device, *, shard, adapter, verify, **settings):
    if int(transformers.__version__.split(".")[0]) < 5:
        raise CheckpointError(f"a mesh needs transformers 5, this is {transformers.__version__}")
    if mesh.device_type == "cpu":
        device = torch.device("cpu")
    exchange = Exchange(mesh.mesh.flatten().tolist())
    try:
        checkpoint = exchange.together(f"opening {path}", lambda: Checkpoint(path, verify=verify, sparse=shard))
        with checkpoint:
            load = load_sharded if shard else load_replicated
            model = load(checkpoint, exchange, mesh, device, adapter, settings)
            exchange.together(f"loading {path}", checkpoint.check_unchanged)
            model.nibble_bytes_read = checkpoint.bytes_read
        return model
    finally:
        exchange.close()


def load_replicated(checkpoint, exchange, mesh, device, adapter, settings):
    """The whole model on every rank, checked by all ranks together before any of them uses it."""

    def check() -> None:
        nowhere = torch.empty(0)
        everyone = [Wanted(tensor, [(0, tensor.size)] * exchange.size, nowhere) for tensor in checkpoint.values()]
        assign(everyone, exchange.size)
        for item in everyone:
            for start, stop, reader in item.pieces:
                if reader == exchange.rank:
                    item.tensor.bytes(start, stop)

    exchange.together(f"checking {checkpoint.path}", check)
    checkpoint.trust()
    model = exchange.together(
        f"loading {checkpoint.path}",
        lambda: adapter.add(models.build(checkpoint, models.source(checkpoint), device, **settings)),
    )
    share_adapter(model, exchange)
    # Equal on all ranks already. What DDP would send to the others would be written to pages of their own.
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, frozen)
    return model


def load_sharded(checkpoint, exchange, mesh, device, adapter, settings):
    def prepare():
        check_adapter(adapter.config)
        check_conversion(checkpoint, settings["options"])
        placeholders = Placeholders(checkpoint)
        source = models.source(placeholders.tensors)
        model = models.build(checkpoint, source, torch.device("cpu"), **settings)
        traced = trace(model, placeholders)
        if adapter.config is not None:
            model = adapter.add(model)
            trace_copies(model, traced)
        for module, key, name in traced.buffers:
            module._buffers[key] = checkpoint[name].torch().to(module._buffers[key].dtype, copy=True)
        return model, traced

    model, traced = exchange.together(f"reading the headers of {checkpoint.path}", prepare)
    for place in traced.parameters:
        place.replace_by_meta()
    share_adapter(model, exchange)
    wrap(model, mesh)
    wanted = [want_parameter(place, checkpoint, exchange, mesh, device) for place in traced.parameters]
    wanted += [want_whole(statistic, checkpoint, exchange, device) for statistic in traced.statistics]
    # In the order of the file: what lies side by side is read together.
    wanted.sort(key=lambda item: (item.tensor.file, item.tensor.offset))
    assign(wanted, exchange.size)
    order = list(batches(wanted))
    exchange.prefetch(order[0])
    for batch, following in zip(order, order[1:] + [[]]):
        exchange.prefetch(following)
        exchange.fill(batch)
    for place in traced.parameters:
        place.settle()
    for statistic in traced.statistics:
        statistic.settle()
    for module in model.modules():
        if isinstance(module, Linear4bit):
            # bitsandbytes' CPU path would repack weight and statistics in place at the first forward in eval mode. The
            # next gathering brings back the weight as it was, and not the statistics.
            module.support_avx512bf16_for_cpu = False
            module.quant_state.offset = _moved(module.quant_state.offset, device)
    return model


def _moved(tensor, device):
    return tensor.to(device) if isinstance(tensor, torch.Tensor) else tensor


@dataclass
class Place:
    """A parameter of the model: the modules that hold it, and the tensor that it comes from."""

    name: str
    source: str
    owners: list[tuple[nn.Module, str]]
    local: torch.Tensor | None = None

    def replace_by_meta(self) -> None:
        module, key = self.owners[0]
        old = module._parameters[key]
        data = torch.empty(old.shape, dtype=old.dtype, device="meta")
        # A plain parameter in place of Params4bit: bitsandbytes takes the quantization state back from the module.
        new = nn.Parameter(data, requires_grad=old.requires_grad)
        for owner, owner_key in self.owners:
            owner._parameters[owner_key] = new

    def settle(self) -> None:
        module, key = self.owners[0]
        old = module._parameters[key]
        local = self.local.to(old.dtype)
        tensor = DTensor.from_local(
            local, old.device_mesh, old.placements, run_check=False, shape=old.shape, stride=old.stride()
        )
        new = nn.Parameter(tensor, requires_grad=old.requires_grad)
        for owner, owner_key in self.owners:
            owner._parameters[owner_key] = new


@dataclass
class Statistic:
    """A tensor of a layer's quantization state, which every rank holds whole."""

    source: str
    state: object
    attribute: str
    tensor: torch.Tensor | None = None

    def settle(self) -> None:
        setattr(self.state, self.attribute, self.tensor)


@dataclass
class Traced:
    parameters: list[Place]
    statistics: list[Statistic]
    # Few and small: every rank reads them.
    buffers: list[tuple[nn.Module, str, str]]


def trace(model: nn.Module, placeholders: Placeholders) -> Traced:
    """Where each tensor of the checkpoint went, in a model without an adapter."""
    parameters: dict[int, Place] = {}
    statistics: list[Statistic] = []
    buffers = []
    for path, module in model.named_modules():
        for key, buffer in module._buffers.items():
            if buffer is not None and placeholders.has(buffer):
                buffers.append((module, key, placeholders.name(buffer, f"{path}.{key}")))
        for key, parameter in module._parameters.items():
            if parameter is None:
                continue
            if id(parameter) in parameters:
                parameters[id(parameter)].owners.append((module, key))
                continue
            name = f"{path}.{key}" if path else key
            parameters[id(parameter)] = Place(name, placeholders.name(parameter.data, name), [(module, key)])
        if isinstance(module, Linear4bit):
            states = [module.quant_state] + ([module.quant_state.state2] if module.quant_state.nested else [])
            for state in states:
                for attribute in ("absmax", "code"):
                    source = placeholders.name(getattr(state, attribute), f"{path}.weight.{attribute}")
                    statistics.append(Statistic(source, state, attribute))
    return Traced(list(parameters.values()), statistics, buffers)


def check_adapter(peft_config) -> None:
    """Refuses adapters whose first values come from the weights: a rank has only some of them."""
    if peft_config is None:
        return
    kind = getattr(peft_config.peft_type, "value", peft_config.peft_type)
    first = getattr(peft_config, "init_lora_weights", True)
    if kind != "LORA" or first not in (True, False, "gaussian", "orthogonal"):
        raise CheckpointError(f"an adapter of type {kind}, initialized by {first}, needs whole weights: use no mesh")
    if peft_config.use_dora or getattr(peft_config, "trainable_token_indices", None):
        raise CheckpointError("DoRA and trainable tokens need whole weights when they begin: use no mesh")


def trace_copies(model: nn.Module, traced: Traced) -> None:
    """`modules_to_save` are trainable copies of modules, and begin with the same tensors."""
    sources = {(id(owner), key): place.source for place in traced.parameters for owner, key in place.owners}
    for path, wrapper in model.named_modules():
        copies = getattr(wrapper, "modules_to_save", None)
        for adapter, copy in copies.items() if isinstance(copies, nn.ModuleDict) else ():
            originals = dict(wrapper.original_module.named_modules())
            for inner, module in copy.named_modules():
                for key, parameter in module._parameters.items():
                    if parameter is not None:
                        name = ".".join(filter(None, (path, "modules_to_save", adapter, inner, key)))
                        traced.parameters.append(Place(name, sources[id(originals[inner]), key], [(module, key)]))


def wrap(model: nn.Module, mesh) -> None:
    """Every decoder layer by itself, as FSDP is configured for transformers; the rest with the root."""
    classes = set(getattr(model, "_no_split_modules", None) or ())
    if hasattr(model, "get_base_model"):
        classes |= set(getattr(model.get_base_model(), "_no_split_modules", None) or ())
    for module in list(model.modules()):
        if type(module).__name__ in classes:
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


def want_parameter(place: Place, checkpoint, exchange, mesh, device) -> Wanted:
    module, key = place.owners[0]
    parameter = module._parameters[key]
    tensor = checkpoint[place.source]
    rows = parameter.shape[0] if parameter.ndim else 1
    row = tensor.size // rows if rows else 0
    ranges = []
    for rank in range(exchange.size):
        count, first = local_range(parameter, mesh, exchange.ranks[rank])
        ranges.append((first * row, (first + count) * row))
    mine = parameter.to_local()
    place.local = torch.empty(mine.shape, dtype=getattr(torch, TORCH[tensor.dtype]), device=device)
    return Wanted(tensor, ranges, flat_bytes(place.local))


def local_range(parameter: DTensor, mesh, rank: int) -> tuple[int, int]:
    """(rows, first row) that a rank holds: `torch.chunk` over the sharded dimension of the mesh."""
    coordinate = (mesh.mesh == rank).nonzero()[0].tolist()
    rows, first = parameter.shape[0], 0
    for dimension, placement in enumerate(parameter.placements):
        if placement.is_shard():
            if placement.dim != 0:
                raise CheckpointError("only the first dimension can be sharded")
            step = -(-rows // mesh.size(dimension))
            begin = min(coordinate[dimension] * step, rows)
            rows, first = min(step, rows - begin), first + begin
    return rows, first


def want_whole(statistic: Statistic, checkpoint, exchange, device) -> Wanted:
    tensor = checkpoint[statistic.source]
    statistic.tensor = torch.empty(tensor.shape, dtype=getattr(torch, TORCH[tensor.dtype]), device=device)
    return Wanted(tensor, [(0, tensor.size)] * exchange.size, flat_bytes(statistic.tensor))


def flat_bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(-1).view(torch.uint8)


def batches(wanted: list[Wanted]):
    batch: list[Wanted] = []
    for item in wanted:
        batch.append(item)
        if sum(part.tensor.size for part in batch) >= BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def share_adapter(model: nn.Module, exchange: Exchange) -> None:
    """Rank 0's fresh adapter on every rank: each drew its own random numbers."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not parameter.is_meta:
            value = parameter.data.cpu()
            dist.broadcast(value, dist.get_global_rank(exchange.group, 0), group=exchange.group)
            parameter.data.copy_(value)
