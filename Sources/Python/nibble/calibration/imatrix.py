"""The same sums as an importance matrix, the file of `llama-imatrix` that llama-quantize and `nibble quantize` take."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ..container import MappedFile
from ..errors import needs, printable
from .errors import UNSUPPORTED, Refusal

# llama.cpp's names for what transformers calls otherwise, beyond dashes and endings.
ARCHITECTURES = {
    "mistral": "llama", "mixtral": "llama", "gptbigcode": "starcoder", "phi": "phi2", "cohere": "command-r",
    "glm": "chatglm", "deepseekv2": "deepseek2", "deepseekv3": "deepseek2",
}  # fmt: skip
# An expert's number, which the names of stacked experts are without.
NUMBERED = re.compile(r"\.experts\.(\d+)\.")


class Names:
    """What llama.cpp calls the tensors of a model, by gguf's own tables.

    Raises Refusal for a model that these do not have, ModuleNotFoundError without the package gguf.
    """

    def __init__(self, model_type: str, layers: int) -> None:
        with needs("--imatrix", "gguf", "nibble quantize takes it, and statistics are written without"):
            import gguf
        names = {plain(name): arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
        wanted = plain(model_type.removesuffix("_text"))
        arch = names.get(plain(ARCHITECTURES.get(wanted, wanted)))
        if arch is None:
            raise Refusal(UNSUPPORTED, f"--imatrix: gguf has no names for models of type {printable(model_type)}")
        self._names = gguf.get_tensor_name_map(arch, layers)

    def of(self, weight: str, parameter: str) -> list[str]:
        """Of a tensor of the checkpoint, which became a parameter. A stack of gates and of what they open may be two
        tensors there."""
        # The last is for what a checkpoint has under a name of its own: with towers, or without a prefix.
        for name in (weight, weight.removeprefix("language_model."), parameter):
            name = NUMBERED.sub(".experts.", name)
            found = self._names.get_name(name, (".weight",))
            if found is not None:
                return [found if found.endswith(".weight") else f"{found}.weight"]
            if "experts.gate_up_proj" in name:
                parts = (self._names.get_name(name.replace("gate_up_proj", part)) for part in ("gate_proj", "up_proj"))
                if found := [f"{part}.weight" for part in parts if part is not None]:
                    return found
        return []


def plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


class Matrix:
    """The tensors of the file: sums and counts of each expert, 1 of most."""

    def __init__(self) -> None:
        self.tensors: dict[str, dict[int, tuple[np.ndarray, float]]] = {}
        self.unnamed: list[str] = []

    def add(self, part: MappedFile, about: dict[str, Any], names: Names) -> None:
        for weight, given in about["modules"].items():
            found = names.of(weight, about["parameters"][weight])
            if not found:
                self.unnamed.append(weight)
            sums, counts = values(part, f"{given}.sums"), values(part, f"{given}.counts")
            number = NUMBERED.search(weight)
            first = int(number[1]) if number else 0
            for name in found:
                for expert, count in enumerate(counts):
                    row = sums[expert] if sums.ndim == 2 else sums
                    self.tensors.setdefault(name, {})[first + expert] = row, float(count)

    def write(self, path: str, datasets: list[str], chunks: int, size: int) -> None:
        import gguf

        writer = gguf.GGUFWriter(path, "")
        writer.add_type("imatrix")
        writer.add_array("imatrix.datasets", datasets)
        writer.add_uint32("imatrix.chunk_count", chunks)
        writer.add_uint32("imatrix.chunk_size", size)
        for name, experts in self.tensors.items():
            rows = [experts[expert] for expert in range(len(experts))]
            writer.add_tensor(f"{name}.in_sum2", np.stack([sums for sums, _ in rows]))
            writer.add_tensor(f"{name}.counts", np.array([[count] for _, count in rows], np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def values(part: MappedFile, name: str) -> np.ndarray:
    entry = part.entries[name]
    data = part.view[entry.offset : entry.offset + entry.size]
    return np.frombuffer(data, "<f4").reshape(entry.shape).copy()
