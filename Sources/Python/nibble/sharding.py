"""`nibble.load(…, mesh=…)`: one model over many ranks, of which each reads its own part.

The model is built of placeholders (tracing.py), its parameters move to the meta device, layers are wrapped by
`fully_shard`, and what each rank is to hold is read, exchanged where several need it (exchange.py), and put in place.
"""

from typing import Any

import torch
import torch.distributed as dist
import transformers
from bitsandbytes.nn import Linear4bit
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from . import model as models
from .architecture import Architecture, resolve
from .checkpoint import Checkpoint
from .errors import CheckpointError
from .exchange import Exchange, Wanted, assign
from .lazy import TORCH
from .tracing import Place, Placeholders, Statistic, converted, trace, trace_copies

# Tensors are exchanged in batches of about this many bytes.
BATCH = 64 << 20


def load_on_mesh(
    path: str, mesh: DeviceMesh, device: torch.device, *, shard: bool, adapter: models.Adapter, verify: bool | None,
    **settings: Any,
) -> Any:  # fmt: skip
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
            models.set_bytes_read(model, checkpoint)
        return model
    finally:
        exchange.close()


def load_replicated(
    checkpoint: Checkpoint, exchange: Exchange, mesh: DeviceMesh, device: torch.device, adapter: models.Adapter,
    settings: dict[str, Any],
) -> Any:  # fmt: skip
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

    def build():
        model, new = models.build(checkpoint, resolve(checkpoint, **settings), models.source(checkpoint), device)
        return adapter.add(model), new

    model, new = exchange.together(f"loading {checkpoint.path}", build)
    share(model, {*map(id, new)}, exchange)
    # Equal on all ranks already. What DDP and DeepSpeed would send to the others, on the CPU, would be written to pages
    # of their own. DeepSpeed leaves out what bears the mark of its own frozen weights.
    frozen = {name: parameter for name, parameter in model.named_parameters() if not parameter.requires_grad}
    nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, list(frozen))
    for parameter in frozen.values():
        parameter.ds_optim_param = True
    return model


def load_sharded(
    checkpoint: Checkpoint, exchange: Exchange, mesh: DeviceMesh, device: torch.device, adapter: models.Adapter,
    settings: dict[str, Any],
) -> Any:  # fmt: skip
    def prepare():
        check_adapter(adapter.config)
        architecture = resolve(checkpoint, **settings)
        check_conversion(checkpoint, architecture)
        placeholders = Placeholders(checkpoint)
        source = models.source(placeholders.tensors)
        model, new = models.build(checkpoint, architecture, source, torch.device("cpu"))
        traced = trace(model, placeholders, {*map(id, new)})
        if adapter.config is not None:
            model = adapter.add(model)
            trace_copies(model, traced)
        for module, key, name in traced.buffers:
            module._buffers[key] = checkpoint[name].torch().to(module._buffers[key].dtype, copy=True)
        return model, traced, {*map(id, new)}

    model, traced, new = exchange.together(f"reading the headers of {checkpoint.path}", prepare)
    for place in traced.parameters:
        place.replace_by_meta()
    share(model, new, exchange)
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
        if isinstance(module, Linear4bit) and module.quant_state.nested:
            module.quant_state.offset = module.quant_state.offset.to(device)
    models.keep_layout(model)
    return model


def check_conversion(checkpoint: Checkpoint, architecture: Architecture) -> None:
    """Refuses models that stack experts and the like before that is done to placeholders, which takes real memory."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping
    from transformers.core_model_loading import WeightConverter

    for kind in (architecture.saved.model_type, architecture.config.model_type):
        if any(isinstance(rule, WeightConverter) for rule in get_checkpoint_conversion_mapping(kind) or ()):
            raise converted(f"{checkpoint.path}: {kind}")


def check_adapter(peft_config: Any) -> None:
    """Refuses adapters whose first values come from the weights: a rank has only some of them."""
    if peft_config is None:
        return
    kind = getattr(peft_config.peft_type, "value", peft_config.peft_type)
    first = getattr(peft_config, "init_lora_weights", True)
    if kind != "LORA" or first not in (True, False, "gaussian", "orthogonal"):
        raise CheckpointError(f"an adapter of type {kind}, initialized by {first}, needs whole weights: use no mesh")
    if peft_config.use_dora or getattr(peft_config, "trainable_token_indices", None):
        raise CheckpointError("DoRA and trainable tokens need whole weights when they begin: use no mesh")


def wrap(model: Any, mesh: DeviceMesh) -> None:
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
    parameter: Any = module._parameters[key]
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
    placements: Any = parameter.placements
    for dimension, placement in enumerate(placements):
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


def share(model: nn.Module, new: set[int], exchange: Exchange) -> None:
    """Rank 0's fresh adapter, and head, on every rank: each drew its own random numbers."""
    for parameter in model.parameters():
        if (parameter.requires_grad or id(parameter) in new) and not parameter.is_meta:
            value = parameter.data.cpu()
            dist.broadcast(value, dist.get_global_rank(exchange.group, 0), group=exchange.group)
            parameter.data.copy_(value)
