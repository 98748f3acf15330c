"""One way to load the 4-bit model, timed; or two ways, compared bit for bit."""

import os
import pathlib
import sys

import child

QUANT_STATES = ("absmax", "code", "offset", "state2.absmax", "state2.code")


def drop_from_cache(folder: str) -> None:
    """Clean pages of its files leave the page cache. What the disk keeps itself stays, hence cold-ish."""
    for path in pathlib.Path(folder).glob("*.safetensors"):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(folder: str) -> None:
    """Into the page cache."""
    for path in pathlib.Path(folder).glob("*.safetensors"):
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 24):
                pass


def stock(folder: str, device: str):
    import torch
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, device_map={"": device})


def direct(folder: str, device: str, verify: bool):
    import nibble

    return nibble.load(folder, device=device, verify=verify)


def load(way: str, folder: str, device: str):
    return stock(folder, device) if way == "stock" else direct(folder, device, verify=way == "nibble")


def states(parameter) -> dict:
    """Every tensor of a weight's quantization by its name."""
    found = {}
    for name in QUANT_STATES:
        value = parameter.quant_state
        for part in name.split("."):
            value = getattr(value, part, None)
        if value is not None:
            found[name] = value
    return found


def compare(mine, theirs) -> dict:
    """The first difference in words, or None, and how much was compared."""
    import checkpoint
    import oracle
    from bitsandbytes.nn import Params4bit

    quantized = oracle.check_loaded_alike(mine, theirs)
    others, tensors = dict(theirs.named_parameters(remove_duplicate=False)), 0
    for name, parameter in mine.named_parameters(remove_duplicate=False):
        if not isinstance(parameter, Params4bit):
            continue
        my_states, their_states = states(parameter), states(others[name])
        assert set(my_states) == set(their_states), f"{name}: parts of the quantization differ"
        for part, tensor in my_states.items():
            assert tensor.device == their_states[part].device, f"{name}: {part} is elsewhere"
            assert checkpoint.same(tensor, their_states[part]), f"{name}: {part} differs"
            tensors += 1
    my_buffers, their_buffers = set(dict(mine.named_buffers())), set(dict(theirs.named_buffers()))
    assert my_buffers == their_buffers, f"buffers: {sorted(my_buffers ^ their_buffers)}"
    return {"parameters": len(others), "quantized": quantized, "buffers": len(my_buffers), "states": tensors}


def equal(task: dict, place) -> dict:
    mine, theirs = load("nibble", task["folder"], place.device), load("stock", task["folder"], place.device)
    try:
        return {"equal": True, "difference": None} | compare(mine, theirs)
    except (AssertionError, AttributeError) as error:
        return {"equal": False, "difference": str(error) or type(error).__name__}


def timed(task: dict, place) -> dict:
    """Libraries are imported before; what is timed ends when every byte is on the device."""
    import importlib

    import torch
    import transformers

    for name in ("accelerate", "bitsandbytes"):
        importlib.import_module(name)
    if task["way"] != "stock":
        # The package imports torch and the rest when it is first asked for this.
        _ = importlib.import_module("nibble").load
    # Lazily imported by the first use, which is not to be a part of the loading.
    _ = transformers.LlamaForCausalLM
    _ = torch.ones(8, 8, device=place.device) @ torch.ones(8, 8, device=place.device)
    (drop_from_cache if task["cold"] else read)(task["folder"])
    place.reset()
    with child.Clock(place) as clock:
        model = load(task["way"], task["folder"], place.device)
    place.note()
    size = sum(path.stat().st_size for path in pathlib.Path(task["folder"]).glob("*.safetensors"))
    return {"seconds": clock.seconds, "bytes": size, "parameters": len(list(model.parameters())),
            "memory": place.figures()}


def work(task: dict) -> dict:
    import card

    place = card.place(task["place"])
    return (equal if task["way"] == "equal" else timed)(task, place)


if __name__ == "__main__":
    sys.exit(child.main(work))
