"""Files of torch.save: every type, every way to lay out a tensor, every option of saving, each with what is in it."""

import collections
import itertools

import torch

TYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool, torch.complex64, torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn,
    torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu,
]


def values(dtype, *shape, seed=0):
    """Bytes without a pattern, as a tensor; of bool, what a bool can be."""
    count = 1
    for size in shape:
        count *= size
    generator = torch.Generator().manual_seed(seed + 1000 * len(shape) + count)
    width = torch.empty(0, dtype=dtype).element_size()
    raw = torch.randint(0, 2 if dtype is torch.bool else 256, (count * width,), dtype=torch.uint8, generator=generator)
    return raw.view(dtype).reshape(shape)


def layouts(dtype):
    """A tensor of every layout, by its name."""
    big = values(dtype, 40, 30, seed=1)
    tied = values(dtype, 4, 4, seed=2)
    return {
        "contiguous": values(dtype, 5, 3),
        "transposed": values(dtype, 7, 5).t(),
        "row": values(dtype, 1, 9).t(),
        "expanded": values(dtype, 3, 1).expand(3, 6),
        "expanded.all": values(dtype, 1)[0].expand(2, 3),
        "slice": big[3:9, 4:11],
        "step": big[::3, ::7],
        "column": big[:, 5],
        "scalar": values(dtype, 1)[0],
        "empty": values(dtype, 0, 4),
        "channels_last": values(dtype, 2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "permuted": values(dtype, 3, 4, 5, seed=3).permute(2, 0, 1),
        "windows": big.reshape(-1).as_strided((6, 5), (2, 1), 3),
        "tied.a": tied,
        "tied.b": tied,
        "tied.t": tied.t(),
    }


def large(dtype):
    """Matrices that are read in more than one piece, on either side of what is worth a read of its own."""
    return {
        "tall": values(dtype, 9000, 700).t(),
        "wide": values(dtype, 600, 9001).t(),
        "planes": values(dtype, 90, 80, 70).permute(1, 2, 0),
        "plain": values(dtype, 1000, 100),
    }


def roots(tensors):
    """The places in a file where a model's tensors are looked for, and what else may lie about there."""
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]}
    return {
        "root": tensors,
        "ordered": collections.OrderedDict(tensors),
        "beside": tensors | {"epoch": 3, "name": "Jürgen", "arguments": {"lr": [1e-3, None, True, 1 << 40]}},
        "state_dict": {"state_dict": tensors, "epoch": 7, "optimizer": optimizer},
        "model": {"optimizer": optimizer, "model": collections.OrderedDict(tensors)},
        "module": {"module": tensors, "ds_version": "0.19", "shapes": {"a": torch.Size([2, 3])}},
        "model_state_dict": {"model_state_dict": tensors, "kinds": {1, 2}, "raw": b"\0\xff", "numbers": (1, -70000)},
        "parameters": {name: torch.nn.Parameter(tensor, requires_grad=False) for name, tensor in tensors.items()},
        "module's own": module(tensors),
    }


def module(tensors):
    """A state_dict as a module gives it: an ordered dictionary with attributes."""
    holder = torch.nn.Module()
    for number, tensor in enumerate(tensors.values()):
        holder.register_buffer(f"buffer{number}", tensor)
    return holder.state_dict()


def plain(tensors):
    """The tensors of a root, as they are to be read."""
    for key in ("state_dict", "model", "module", "model_state_dict"):
        if key in tensors:
            return dict(tensors[key])
    return {name: tensor.detach() for name, tensor in tensors.items() if isinstance(tensor, torch.Tensor)}


OPTIONS = {
    "zip": {},
    "legacy": {"_use_new_zipfile_serialization": False},
    "zip-4": {"pickle_protocol": 4},
    "zip-5": {"pickle_protocol": 5},
    "legacy-4": {"_use_new_zipfile_serialization": False, "pickle_protocol": 4},
}


def save(content, path, checksums=True, **options):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(checksums)
    try:
        torch.save(content, path, **options)
    finally:
        torch.serialization.set_crc32_options(before)


def write(folder):
    """Writes all of them.

    Yields the path of each, and its tensors by name.
    """
    def one(name, content, **options):
        path = folder / f"{name.replace(' ', '_')}.bin"
        save(content, path, **options)
        return path, plain(content)

    for dtype, (option, flags) in itertools.product(TYPES, OPTIONS.items()):
        if option in ("zip", "legacy") or dtype in (torch.bfloat16, torch.uint16):
            yield one(f"{str(dtype).removeprefix('torch.')}.{option}", layouts(dtype), **flags)
    for root, content in roots(layouts(torch.float32)).items():
        for option in ("zip", "legacy", "zip-4"):
            yield one(f"at {root}.{option}", content, **OPTIONS[option])
    for dtype in TYPES[:12]:
        yield one(f"{str(dtype).removeprefix('torch.')}.no checksums", layouts(dtype), checksums=False)
    yield one("nothing", {})
    for dtype in (torch.bfloat16, torch.int8, torch.float64):
        yield one(f"large.{str(dtype).removeprefix('torch.')}", large(dtype))
    yield one("large.legacy", large(torch.float32), **OPTIONS["legacy"])
    path = folder / "through a stream.bin"
    with path.open("wb") as stream:
        torch.save(layouts(torch.int32), stream)
    yield path, layouts(torch.int32)


def stored(tensor):
    """The bytes of a tensor as a contiguous one has them."""
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
