"""Checkpoints of real shapes with made-up weights, written as a stream.

Weights are drawn once, a block of normal numbers with a standard deviation of 0.02; every tensor starts
at its own place in that block, so no two layers are alike and the 26 GB model takes as long as writing
26 GB does. Norms are ones, as in a model that computes. Needs numpy, and less than 400 MB of memory.

Run as a program it writes one model, models.py SHAPE FOLDER LIMIT SPARSE, or an adapter for one, models.py
adapter SHAPE FOLDER RANK, the shape as JSON. `ensure` does that in a process of its own, because a process's peak memory counts as its children's too.
"""

import dataclasses
import json
import math
import pathlib
import struct
import subprocess
import sys
import zlib

# A prime number of values: tensors of a power of two in size never fall into step with it.
BLOCK_VALUES = 33_554_467


@dataclasses.dataclass(frozen=True)
class Shape:
    """A Llama: what its configuration says about sizes."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    vocabulary: int
    dtype: str = "bfloat16"

    def tensors(self) -> list[tuple[str, list[int]]]:
        hidden, inner = self.hidden, self.intermediate
        rows = [("model.embed_tokens.weight", [self.vocabulary, hidden])]
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}."
            rows += [(f"{prefix}self_attn.{letter}_proj.weight", [hidden, hidden]) for letter in "qkvo"]
            rows += [(f"{prefix}mlp.{name}_proj.weight", [inner, hidden]) for name in ("gate", "up")]
            rows.append((f"{prefix}mlp.down_proj.weight", [hidden, inner]))
            rows += [(f"{prefix}{name}_layernorm.weight", [hidden]) for name in ("input", "post_attention")]
        return rows + [("model.norm.weight", [hidden]), ("lm_head.weight", [self.vocabulary, hidden])]

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for _, shape in self.tensors())

    @property
    def quantized_parameters(self) -> int:
        """Those of the linear layers, the output embedding excepted."""
        return sum(math.prod(shape) for name, shape in self.tensors() if "_proj" in name)

    def config(self) -> dict:
        return {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "hidden_size": self.hidden, "intermediate_size": self.intermediate, "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads, "num_key_value_heads": self.heads, "vocab_size": self.vocabulary,
            "max_position_embeddings": 16384, "rms_norm_eps": 1e-5, "rope_theta": 1000000, "bos_token_id": 1,
            "eos_token_id": 2, "tie_word_embeddings": False, "torch_dtype": self.dtype,
        }


LLAMA_437M = Shape(layers=8, hidden=2048, intermediate=5504, heads=16, vocabulary=8000)
LLAMA_536M = Shape(layers=8, hidden=2048, intermediate=5504, heads=16, vocabulary=32000)
CODELLAMA_13B = Shape(layers=40, hidden=5120, intermediate=13824, heads=40, vocabulary=32016)


def weights(dtype: str) -> memoryview:
    """The block, as bytes of the dtype."""
    import numpy  # here only: whoever measures memory imports this file and stays small

    values = numpy.random.default_rng(13).standard_normal(BLOCK_VALUES, dtype=numpy.float32)
    values *= 0.02
    if dtype == "float16":
        return memoryview(values.astype(numpy.float16)).cast("B")
    bits = values.view(numpy.uint32)
    bits += 0x7FFF  # ties are too rare here to be worth rounding to even
    return memoryview((bits >> 16).astype(numpy.uint16)).cast("B")


def shards(shape: Shape, limit: int) -> list[list[tuple[str, list[int]]]]:
    """Filled in order, none above the limit in bytes."""
    groups, size = [[]], 0
    for name, sides in shape.tensors():
        count = 2 * math.prod(sides)
        if size + count > limit and groups[-1]:
            groups.append([])
            size = 0
        groups[-1].append((name, sides))
        size += count
    return groups


def write(shape: Shape, folder: pathlib.Path, limit: int, sparse: bool) -> None:
    """A complete checkpoint; `sparse` leaves the data as a hole of the right size."""
    folder.mkdir(parents=True, exist_ok=True)
    block = None if sparse else weights(shape.dtype)
    groups, index, total = shards(shape, limit), {}, 0
    for number, group in enumerate(groups, 1):
        name = "model.safetensors" if len(groups) == 1 else f"model-{number:05}-of-{len(groups):05}.safetensors"
        total += write_shard(folder / name, group, shape.dtype, block)
        index |= {tensor: name for tensor, _ in group}
    if len(groups) > 1:
        text = json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=2)
        (folder / "model.safetensors.index.json").write_text(text)
    # Last, so that a folder with it is complete.
    (folder / "config.json").write_text(json.dumps(shape.config(), indent=2))


def write_shard(path: pathlib.Path, group: list, dtype: str, block: memoryview | None) -> int:
    entries, end = {"__metadata__": {"format": "pt"}}, 0
    for name, sides in group:
        size = 2 * math.prod(sides)
        label = "F16" if dtype == "float16" else "BF16"
        entries[name] = {"dtype": label, "shape": sides, "data_offsets": [end, end + size]}
        end += size
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        if block is None:
            file.truncate(8 + len(header) + end)
            return end
        for name, sides in group:
            if len(sides) == 1:
                file.write(struct.pack("<H", 0x3C00 if dtype == "float16" else 0x3F80) * sides[0])
                continue
            remaining, start = 2 * math.prod(sides), 2 * (zlib.crc32(name.encode()) % BLOCK_VALUES)
            while remaining:
                piece = block[start : start + remaining]
                file.write(piece)
                remaining, start = remaining - len(piece), 0
    return end


def write_adapter(shape: Shape, folder: pathlib.Path, rank: int) -> None:
    """A PEFT adapter on all linear layers, in bf16, as QLoRA leaves it; α is half the rank."""
    folder.mkdir(parents=True, exist_ok=True)
    group = []
    for name, sides in shape.tensors():
        if "_proj" in name:
            module = "base_model.model." + name.removesuffix(".weight")
            group += [(f"{module}.lora_A.weight", [rank, sides[1]]), (f"{module}.lora_B.weight", [sides[0], rank])]
    write_shard(folder / "adapter_model.safetensors", group, "bfloat16", weights("bfloat16"))
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank // 2, "target_modules": targets,
              "base_model_name_or_path": "base", "inference_mode": True}
    # Last, so that a folder with it is complete.
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))


def ensure_adapter(shape: Shape, folder: pathlib.Path, rank: int = 64) -> pathlib.Path:
    if not (folder / "adapter_config.json").exists():
        text = json.dumps(dataclasses.asdict(shape))
        subprocess.run([sys.executable, __file__, "adapter", text, str(folder), str(rank)], check=True)
    return folder


def ensure(shape: Shape, folder: pathlib.Path, limit: int = 10_000_000_000, sparse: bool = False,
           python: str = sys.executable) -> pathlib.Path:
    """Writes it unless it is complete, which its configuration, written last, tells; `python` is one with numpy."""
    config = folder / "config.json"
    if not config.exists() or json.loads(config.read_text()) != shape.config():
        config.unlink(missing_ok=True)
        text = json.dumps(dataclasses.asdict(shape))
        command = [python, __file__, text, str(folder), str(limit), str(int(sparse))]
        subprocess.run(command, check=True)
    return folder


if __name__ == "__main__":
    if sys.argv[1] == "adapter":
        _, _, text, folder, rank = sys.argv
        write_adapter(Shape(**json.loads(text)), pathlib.Path(folder), int(rank))
    else:
        _, text, folder, limit, sparse = sys.argv
        write(Shape(**json.loads(text)), pathlib.Path(folder), int(limit), bool(int(sparse)))
