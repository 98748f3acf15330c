"""Run by torchrun: a checkpoint of torch.distributed.checkpoint, and the same tensors as safetensors.

    torchrun --nproc-per-node N distributed_files.py KIND OUT
"""

import pathlib
import shutil
import sys

import zstandard_standin

zstandard_standin.install()

import torch  # noqa: E402  its extension looks for that module when it is imported
import torch.distributed as dist  # noqa: E402
import torch.distributed.checkpoint as dcp  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch.distributed.checkpoint import FileSystemWriter, HuggingFaceStorageWriter  # noqa: E402
from torch.distributed.checkpoint._extension import ZStandard  # noqa: E402
from torch.distributed.checkpoint.filesystem import SerializationFormat  # noqa: E402
from torch.distributed.checkpoint.state_dict import get_state_dict  # noqa: E402
from torch.distributed.device_mesh import init_device_mesh  # noqa: E402
from torch.distributed.fsdp import fully_shard  # noqa: E402
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor  # noqa: E402

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


def distributed(world: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Every way to cut a tensor along a mesh of one dimension, and of two where there are four processes; and the
    tensors whole."""
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
        square = init_device_mesh("cpu", (2, 2), mesh_dim_names=("ddp", "fsdp"))
        for name, shape in {"boxes": (5, 7), "boxes.large": (611, 800), "boxes.deep": (3, 5, 6)}.items():
            whole[name] = torch.randn(shape, generator=torch.Generator().manual_seed(2))
            saved[name] = distribute_tensor(whole[name], square, [Shard(0), Shard(len(shape) - 1)])
        placements = {"replicas": [Replicate(), Shard(0)], "replicated.rows": [Shard(0), Replicate()],
                      "both": [Replicate(), Replicate()]}
        for name, placed in placements.items():
            whole[name] = torch.randn((7, 3), generator=torch.Generator().manual_seed(3))
            saved[name] = distribute_tensor(whole[name], square, placed)
        whole["submesh"] = torch.randn((5, 3), generator=torch.Generator().manual_seed(4))
        saved["submesh"] = distribute_tensor(whole["submesh"], square["fsdp"], [Shard(0)])
    return saved, {name: tensor.contiguous() for name, tensor in whole.items()}


def pieces(out: pathlib.Path) -> None:
    saved, whole = distributed(dist.get_world_size())
    dcp.save(saved, checkpoint_id=out / "checkpoint")
    if dist.get_rank() == 0:
        save_file(whole, out / "whole.safetensors")


def forms(out: pathlib.Path) -> None:
    """The same in other forms: safetensors in files of processes, in shards, joined; compressed; rank by rank."""
    rank, world = dist.get_rank(), dist.get_world_size()
    saved, whole = distributed(world)
    dcp.save(
        saved, storage_writer=FileSystemWriter(out / "files", serialization_format=SerializationFormat.SAFETENSORS))
    dcp.save(saved, storage_writer=HuggingFaceStorageWriter(str(out / "shards"), save_distributed=True))
    # PyTorch 2.13 joins real numbers alone.
    places = {name: 1 + number % 2 for number, name in enumerate(whole)}
    real = {name: tensor for name, tensor in saved.items() if tensor.is_floating_point()}
    dcp.save(real, storage_writer=HuggingFaceStorageWriter(
        str(out / "joined"), {name: places[name] for name in real}, save_distributed=True, enable_consolidation=True))
    dcp.save(saved, storage_writer=FileSystemWriter(out / "compressed", _extensions=[ZStandard()]))
    (out / "ranks").mkdir(exist_ok=True)
    torch.save(saved, out / f"ranks/model_world_size_{world}_rank_{rank}.pt")
    if rank == 0:
        save_file(whole, out / "whole.safetensors")
        dcp.save(whole, storage_writer=HuggingFaceStorageWriter(str(out / "one"), places), no_dist=True)


def verl(out: pathlib.Path) -> None:
    """A step of verl's FSDP worker: model and optimizer of each rank, configuration and tokenizer beside them."""
    rank, world = dist.get_rank(), dist.get_world_size()
    actor = out / "global_step_10/actor"
    actor.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(3)
    made = transformers.LlamaForCausalLM(CONFIG)
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("ddp", "fsdp")) if world == 4 else init_device_mesh(
        "cpu", (world,), mesh_dim_names=("fsdp",))
    for layer in made.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(made, mesh=mesh)
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2)
    made(input_ids=torch.arange(12).reshape(2, 6), labels=torch.arange(12).reshape(2, 6)).loss.backward()
    optimizer.step()
    state = made.state_dict()
    torch.save(state, actor / f"model_world_size_{world}_rank_{rank}.pt")
    torch.save(optimizer.state_dict(), actor / f"optim_world_size_{world}_rank_{rank}.pt")
    torch.save({"rng": torch.get_rng_state()}, actor / f"extra_state_world_size_{world}_rank_{rank}.pt")
    whole = {name: tensor.full_tensor().contiguous() for name, tensor in state.items()}
    if rank == 0:
        CONFIG.architectures = ["LlamaForCausalLM"]
        CONFIG.save_pretrained(actor / "huggingface")
        (actor / "huggingface/tokenizer_config.json").write_text('{"model_max_length": 77}')
        (actor / "fsdp_config.json").write_text(f'{{"FSDP_version": 2, "world_size": {world}}}')
        plain = out / "plain"
        shutil.copytree(actor / "huggingface", plain)
        save_file(whole, plain / "model.safetensors", metadata={"format": "pt"})


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
    {"pieces": pieces, "forms": forms, "verl": verl, "model": model}[sys.argv[1]](pathlib.Path(sys.argv[2]))
    dist.destroy_process_group()
