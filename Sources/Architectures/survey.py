"""Asks transformers itself, class by class, what it would quantize."""

import collections
import contextlib
import copy
import dataclasses
import importlib
import inspect
import os
import re
import warnings

warnings.filterwarnings("ignore")

import bitsandbytes
import torch
import transformers
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, get_model_conversion_mapping
from transformers.core_model_loading import (
    GroupWeightRename,
    Inkling2IndexOffsetWeightRename,
    WeightConverter,
)
from transformers.integrations.bitsandbytes import replace_with_bnb_linear
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import get_keys_to_not_convert

import variants


# Parameters on the meta device need no values, and setting them is half the time.
nn.Linear.reset_parameters = lambda self: None


@dataclasses.dataclass
class Answer:
    prefix: str
    ties: bool
    renamings: list
    entries: set  # {(pattern, kind)}
    parts: list  # paths of sub-models, outermost first


def versions():
    return {"transformers": transformers.__version__, "bitsandbytes": bitsandbytes.__version__}


def model_classes():
    """{name: class} of every concrete PreTrainedModel that transformers defines."""
    found, failures = {}, {}
    root = os.path.join(os.path.dirname(transformers.__file__), "models")
    for folder in sorted(os.listdir(root)):
        path = os.path.join(root, folder)
        if not os.path.isdir(path):
            continue
        for file in sorted(os.listdir(path)):
            if not (file.startswith("modeling_") and file.endswith(".py")):
                continue
            module_name = f"transformers.models.{folder}.{file[:-3]}"
            try:
                module = importlib.import_module(module_name)
            except Exception as error:
                failures[module_name] = reason(error)
                continue
            for name, value in vars(module).items():
                if not (inspect.isclass(value) and issubclass(value, PreTrainedModel)):
                    continue
                if value.__module__ == module_name and not name.endswith("PreTrainedModel"):
                    found[name] = value
    return found, failures


def reason(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:160]


def build(cls, config):
    """The model as `from_pretrained` makes it for a quantized checkpoint: on the meta device, nothing tied yet."""
    with contextlib.ExitStack() as stack:
        for context in cls.get_init_context(torch.bfloat16, True, False, None):
            stack.enter_context(context)
        return cls(config)


def generalised(path):
    return ".".join("*" if part.isdigit() else part for part in path.split("."))


def last_marked(path):
    return ".".join("$" if part.isdigit() else part for part in path.split("."))


def kinds(model):
    """{path: kind} of one model."""
    found = {}
    linears = {}
    for path, module in model.named_modules():
        if isinstance(module, (nn.Linear, Conv1D)):
            linears[path] = module
    tied = {key for pair in (model.all_tied_weights_keys or {}).items() for key in pair}
    last = list(model.named_parameters())[-1][0]
    output = model.get_output_embeddings()
    weights = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.dim() == 2 and name.endswith(".weight"):
            weights[name[: -len(".weight")]] = parameter
        elif parameter.dim() == 3 and "expert" in name:
            found[name] = "E"
    skip = list(set(get_keys_to_not_convert(model)) | set(model._keep_in_fp32_modules or []))
    replace_with_bnb_linear(model, skip, BitsAndBytesConfig(load_in_4bit=True), pre_quantized=False)
    for path, module in linears.items():
        if type(model.get_submodule(path)) is bitsandbytes.nn.Linear4bit:
            found[path] = "C" if isinstance(module, Conv1D) else "L"
        elif type(module) is not nn.Linear and not isinstance(module, Conv1D):
            found[path] = "S"
        elif module is output:
            found[path] = "o"
        elif path + ".weight" in tied:
            found[path] = "t"
        elif last == path + ".weight":
            found[path] = "l"
        else:
            # Matched by a pattern that another module owes its place to; fp32 patterns are the usual case.
            found[path] = "f"
        if isinstance(module, Conv1D) and found[path] != "C":
            raise ValueError(f"{path} is a Conv1D that is kept")
    for path in weights:
        if path not in found:
            part = path.rpartition(".")[2]
            found[path] = "R" if part in ("gate", "router", "classifier") and "mlp" in path or "router" in part else "N"
    return found


def sub_models(model):
    return [path for path, module in model.named_modules() if path and isinstance(module, PreTrainedModel)]


def pattern_of(transform, index):
    """The regular expression of one source, as the transform compiles it."""
    pattern = transform.source_patterns[index].replace("*.", r".*\.")
    return pattern + r"(?!\w)" if re.search(r"[a-zA-Z0-9]$", pattern) else pattern


def renaming_row(transform):
    scope = "*" if transform.scope_prefix is None else transform.scope_prefix or "."
    order = sorted(range(len(transform.source_patterns)), key=lambda i: -len(transform.source_patterns[i]))
    sources = [pattern_of(transform, i) for i in order]
    targets = list(transform.target_patterns)
    if isinstance(transform, GroupWeightRename):
        kind = "g"
        sources = [pattern_of(transform, i) for i in range(len(targets))]
    elif isinstance(transform, Inkling2IndexOffsetWeightRename):
        kind, targets = f"+ {transform.offset}", targets[:1]
    elif isinstance(transform, WeightConverter):
        kind = "c"
    else:
        kind, targets = "r", targets[:1]
    row = f"{kind} {scope} {' '.join(sources)} => {' '.join(targets)}"
    if any(" " in text or not text for text in sources):
        raise ValueError(f"cannot write the renaming {row!r}")
    return row.rstrip()


def common_renamings():
    return [renaming_row(transform) for transform in get_checkpoint_conversion_mapping("legacy")]


def renamings(model):
    return [renaming_row(transform) for transform in get_model_conversion_mapping(model, add_legacy=False)]


def merged(name, tied, untied):
    """Patterns of one class from its variants: lists of {path: kind} with and without tied embeddings."""
    seen = collections.defaultdict(set)
    for ties, found in [(True, found) for found in tied] + [(False, found) for found in untied]:
        for path, kind in found.items():
            seen[generalised(path)].add((kind, ties))
    entries = set()
    for pattern, answers in seen.items():
        letters = {kind for kind, _ in answers}
        if len(letters) == 1:
            entries.add((pattern, letters.pop()))
        elif letters == {"L", "t"} and not {("L", True), ("t", False)} & answers:
            entries.add((pattern, "t"))
        else:
            entries |= distinguished(name, pattern, tied + untied)
    return entries


def distinguished(name, pattern, variants_found):
    """One pattern whose modules differ in kind: by the number in the path, if that tells."""
    by_path = collections.defaultdict(set)
    for found in variants_found:
        for path, kind in found.items():
            if generalised(path) == pattern:
                by_path[path].add(kind)
    letters = {kind for kinds_here in by_path.values() for kind in kinds_here}
    if letters == {"L", "l"}:
        return {(pattern, "L"), (next(last_marked(p) for p, k in by_path.items() if "l" in k), "l")}
    if all(len(kinds_here) == 1 for kinds_here in by_path.values()):
        return {(path, kinds_here.copy().pop()) for path, kinds_here in by_path.items()}
    raise ValueError(f"{pattern} is {sorted(letters)}, depending on the configuration")


def survey(only=None):
    """({class name: Answer}, {class name: reason it is missing})"""
    classes, failures = model_classes()
    surveyed = {}
    for name, cls in sorted(classes.items()):
        if only and not re.fullmatch(only, name):
            continue
        try:
            surveyed[name] = ask(name, cls)
        except Exception as error:
            failures[name] = reason(error)
    return surveyed, failures


def ask(name, cls):
    by_tie = {True: [], False: []}
    parts = {}
    answer = None
    problem = None

    def look(config):
        nonlocal answer
        model = build(cls, config)
        ties = bool(getattr(model.config, "tie_word_embeddings", False))
        rows = renamings(model)
        if answer is None:
            answer = Answer(model.base_model_prefix, ties, rows, set(), [])
        elif not set(rows) <= set(answer.renamings):
            raise ValueError("the renamings depend on the configuration")
        parts.update(dict.fromkeys(generalised(path) for path in sub_models(model)))
        can_tie = any(getattr(part, "_tied_weights_keys", None) for part in model.modules())
        by_tie[ties].append(kinds(model))
        return ties, can_tie

    for config in variants.configurations(cls):
        try:
            ties, can_tie = look(config)
        except Exception as error:
            problem = problem or error
            continue
        if can_tie:
            for make in (variants.shallow, copy.deepcopy):
                try:
                    look(variants.with_ties(make(config), not ties))
                    break
                except Exception:
                    continue
    if answer is None:
        raise problem or ValueError("no configuration")
    for ties in (True, False):
        by_tie[ties] = by_tie[ties] or by_tie[not ties]
    answer.entries = merged(name, by_tie[True], by_tie[False])
    answer.parts = list(parts)
    return answer
