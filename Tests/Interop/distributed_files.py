"""Run by torchrun: a checkpoint of torch.distributed.checkpoint, and the same tensors as safetensors.

    torchrun --nproc-per-node N distributed_files.py KIND OUT
"""

import pathlib
import sys

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import transformers
from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

CONFIG = transformers.LlamaConfig(
    hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    vocab_size=101, tie_word_embeddings=False)


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    shapes = {
        "rows": (5, 3), "uneven": (7, 4), "short": (1, 6), "columns": (6, 7), "middle": (3, 4, 5), "last": (2, 3, 7),
        "vector": (5,), "long": (1000, 700), "wide": (700, 1001),
    }
    found = {name: torch.randn(shape) for name, shape in shapes.items()}
    found["half"] = torch.randn(9, 8).to(torch.bfloat16)
    found["numbers"] = torch.arange(30).reshape(10, 3)
    found["eight"] = torch.randn(8, 4).to(torch.float8_e4m3fn)
    found["scalar"] = torch.tensor(3.5)
    return found


def distribute(tensor: torch.Tensor, mesh, axis: int) -> torch.Tensor:
    """gloo sends no 8-bit floats: their bytes go, each process says what they are."""
    if tensor.dtype.itemsize > 1 or tensor.dtype is torch.uint8:
        return distribute_tensor(tensor, mesh, [Shard(axis)])
    local = distribute_tensor(tensor.view(torch.uint8), mesh, [Shard(axis)]).to_local().view(tensor.dtype)
    return DTensor.from_local(local, mesh, [Shard(axis)], shape=tensor.shape, stride=tensor.stride())


def pieces(out: pathlib.Path) -> None:
    """Every way to cut a tensor along a mesh of one dimension, and of two where there are four processes."""
    world = dist.get_world_size()
    whole = tensors()
    mesh = init_device_mesh("cpu", (world,))
    cuts = {"columns": 1, "middle": 1, "last": 2, "wide": 1}
    saved = {"scalar": whole["scalar"]}
    for name, tensor in whole.items():
        if tensor.dim():
            saved[name] = distribute(tensor, mesh, cuts.get(name, 0))
    whole["replicated"] = torch.randn(3, 3, generator=torch.Generator().manual_seed(1))
    saved["replicated"] = distribute_tensor(whole["replicated"], mesh, [Replicate()])
    if world == 4:
        square = init_device_mesh("cpu", (2, 2))
        for name, shape in {"boxes": (5, 7), "boxes.large": (611, 800), "boxes.deep": (3, 5, 6)}.items():
            whole[name] = torch.randn(shape, generator=torch.Generator().manual_seed(2))
            saved[name] = distribute_tensor(whole[name], square, [Shard(0), Shard(len(shape) - 1)])
    dcp.save(saved, checkpoint_id=out / "checkpoint")
    if dist.get_rank() == 0:
        save_file({name: tensor.contiguous() for name, tensor in whole.items()}, out / "whole.safetensors")


def model(out: pathlib.Path) -> None:
    """A model after a step under FSDP2, as the Trainer lays it out."""
    torch.manual_seed(3)
    made = transformers.LlamaForCausalLM(CONFIG)
    for layer in made.model.layers:
        fully_shard(layer)
    fully_shard(made)
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2)
    made(input_ids=torch.arange(12).reshape(2, 6), labels=torch.arange(12).reshape(2, 6)).loss.backward()
    optimizer.step()
    state, optimizer_state = get_state_dict(made, optimizer)
    dcp.save({"model": state}, checkpoint_id=out / "pytorch_model_fsdp_0")
    dcp.save({"app": {"model": state, "step": 7}, "optimizer": optimizer_state}, checkpoint_id=out / "together")
    whole = {name: tensor.full_tensor().contiguous() for name, tensor in state.items()}
    if dist.get_rank() == 0:
        CONFIG.architectures = ["LlamaForCausalLM"]
        CONFIG.save_pretrained(out)
        (out / "plain").mkdir()
        CONFIG.save_pretrained(out / "plain")
        save_file(whole, out / "plain/model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    dist.init_process_group("gloo")
    {"pieces": pieces, "model": model}[sys.argv[1]](pathlib.Path(sys.argv[2]))
    dist.destroy_process_group()
