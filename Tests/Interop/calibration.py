"""`python -m nibble.calibrate` in this process, and what it is compared with: hooks on the whole model at once."""

import collections
import json
import pathlib

import torch
import transformers
from safetensors import safe_open
from transformers.pytorch_utils import Conv1D

from nibble.calibrate import main

WORDS = "select name from banks where price is greater than forty and category starts with gold order by city ".split()
TEXT = "\n".join(" ".join(WORDS[(3 * line + word * word) % len(WORDS)] for word in range(12)) for line in range(120))


def calibrate(*arguments, expect: int = 0) -> None:
    assert main([*map(str, arguments), "--device", "cpu"]) == expect


class Statistics:
    def __init__(self, path: pathlib.Path):
        with safe_open(path, "pt") as file:
            self.metadata = file.metadata()
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}
        self.modules = json.loads(self.metadata["modules"])

    def of(self, weight: str, part: str = "sums") -> torch.Tensor:
        return self.tensors[f"{self.modules[weight]}.{part}"]


class Whole:
    """The whole model at once: Σx², Σx·xᵀ and the number of tokens of each linear layer, in float64."""

    def __init__(self, model, batches):
        self.squares, self.grams, self.counts = {}, {}, collections.Counter()
        for name, module in model.named_modules():
            if isinstance(module, (torch.nn.Linear, Conv1D)):
                module.register_forward_pre_hook(lambda _, given, name=name: self.add(f"{name}.weight", given[0]))
            elif type(module).__name__.endswith("TopKRouter"):
                module.register_forward_pre_hook(lambda _, given, name=name: self.add(f"{name}.weight", given[0]))
            elif type(module).__name__.endswith("Experts"):
                module.register_forward_pre_hook(lambda module, given, name=name: self.experts(module, name, *given))
        with torch.no_grad():
            for ids in batches:
                model(input_ids=ids, use_cache=False)

    def add(self, name, given):
        rows = given.double().reshape(-1, given.shape[-1])
        self.squares[name] = self.squares.get(name, 0) + rows.square().sum(0)
        self.grams[name] = self.grams.get(name, 0) + rows.T @ rows
        self.counts[name] += len(rows)

    def experts(self, module, name, hidden, chosen, scores):
        hidden = hidden.reshape(-1, hidden.shape[-1])
        for expert in range(module.num_experts):
            rows = hidden[(chosen == expert).any(-1)]
            first = module.gate_up_proj[expert]
            both = rows @ (first if first.shape[0] == rows.shape[1] else first.T)
            if hasattr(module, "gate_up_proj_bias"):
                inner = module._apply_gate(both + module.gate_up_proj_bias[expert])
            else:
                gate, up = both.chunk(2, dim=-1)
                inner = module.act_fn(gate) * up
            self.add(f"{name}.gate_up_proj[{expert}]", rows)
            self.add(f"{name}.down_proj[{expert}]", inner)


def whole(directory: pathlib.Path, batches: list[torch.Tensor]) -> Whole:
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, experts_implementation="eager")
    return Whole(model.eval(), batches)


def tokenizer(directory: pathlib.Path):
    return transformers.AutoTokenizer.from_pretrained(directory)


def packed(directory, text: pathlib.Path, tokens: int, length: int) -> list[torch.Tensor]:
    """One batch, of one size, as it is run."""
    ids = tokenizer(directory)(text.read_text())["input_ids"]
    assert len(ids) >= tokens and tokens % length == 0 and tokens <= 2048
    return [torch.tensor(ids[:tokens]).view(-1, length)]
