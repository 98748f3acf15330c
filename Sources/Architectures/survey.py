"""Asks transformers itself, class by class, what it would quantize."""

import collections
import concurrent.futures
import contextlib
import copy
import dataclasses
import importlib
import inspect
import multiprocessing
import os
import re
import warnings

warnings.filterwarnings("ignore")

import bitsandbytes
import torch
import transformers
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, get_model_conversion_mapping
from transformers.core_model_loading import (
    GroupWeightRename,
    Inkling2IndexOffsetWeightRename,
    WeightConverter,
)
from transformers.integrations.bitsandbytes import replace_with_bnb_linear
from transformers.models.auto import modeling_auto
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import MODULES_TO_PATCH_FOR_QUANTIZATION, get_keys_to_not_convert

import variants


# Parameters on the meta device need no values, and setting them is half the time.
nn.Linear.reset_parameters = lambda self: None


HERE = os.path.dirname(os.path.abspath(__file__))


@dataclasses.dataclass
class Answer:
    prefix: str
    ties: bool
    renamings: list
    entries: set  # {(pattern, kind)}
    parts: list  # paths of sub-models, outermost first
    replaces_experts: bool = False


def versions():
    return {"transformers": transformers.__version__, "bitsandbytes": bitsandbytes.__version__}


# Names that a checkpoint gives as its class; encoders and decoders on their own are not among them.
NAMES = re.compile(r"^(?!.*PreTrainedModel).*(For[A-Z]|Model$|LMHead|WithLM|WithProjection$|Backbone$|DPR)")


def model_classes():
    """({name: class} of the PreTrainedModel classes that transformers defines, {module: why it is missing})"""
    found, failures = {}, {}
    automatic = set()
    for attribute in dir(modeling_auto):
        if attribute.endswith("MAPPING_NAMES"):
            for names in getattr(modeling_auto, attribute).values():
                automatic.update([names] if isinstance(names, str) else names)
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
                if value.__module__ == module_name and (name in automatic or NAMES.search(name)):
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
    """`*` for every component that is a number, and for the number of an expert."""
    parts = ("*" if part.isdigit() else re.sub(r"^expert_\d+$", "expert_*", part) for part in path.split("."))
    return ".".join(parts)


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
    output = next((path for path, module in model.named_modules() if module is model.get_output_embeddings()), None)
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
        elif output is not None and (path == output or path.startswith(output + ".")):
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
    """(scope or None, line)"""
    scope = None if transform.scope_prefix is None else transform.scope_prefix or "."
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
    row = f"{kind} {' '.join(sources)} => {' '.join(targets)}"
    if any(" " in text or not text for text in sources):
        raise ValueError(f"cannot write the renaming {row!r}")
    return scope, row.rstrip()


def common_renamings():
    return [renaming_row(transform) for transform in get_checkpoint_conversion_mapping("legacy")]


def renamings(model):
    return [renaming_row(transform) for transform in get_model_conversion_mapping(model, add_legacy=False)]


def merged(tied, untied):
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
        elif letters <= set("oftl"):
            # Kept whatever the configuration, only not always for the same reason.
            entries.add((pattern, next(kind for kind in "oflt" if kind in letters)))
        else:
            tied_letters = {kind for kind, ties in answers if ties}
            usual = "t" if tied_letters <= set("oftl") else "L"
            entries |= distinguished(pattern, usual, untied if usual == "t" else tied + untied)
    return entries


def distinguished(pattern, usual, found):
    """One pattern whose modules differ in kind: by the number in the path, if that tells."""
    by_path = collections.defaultdict(set)
    for kinds_found in found:
        for path, kind in kinds_found.items():
            if generalised(path) == pattern:
                by_path[path].add(kind)
    letters = {kind for kinds_here in by_path.values() for kind in kinds_here}
    if letters == {"L", "l"}:
        return {(pattern, usual), (next(last_marked(p) for p, k in by_path.items() if "l" in k), "l")}
    if all(len(kinds_here) == 1 for kinds_here in by_path.values()):
        return {(path, kinds_here.copy().pop()) for path, kinds_here in by_path.items()}
    raise ValueError(f"{pattern} is {sorted(letters)}, depending on the configuration")


CLASSES = {}
FAILURES = {}


def for_every_class(answer, only=None):
    """{class name: answer(class name)}, sorted, by as many processes as there are processors."""
    classes, failures = model_classes()
    CLASSES.update(classes)
    FAILURES.update(failures)
    torch.set_num_threads(1)
    names = [name for name in sorted(CLASSES) if not only or re.fullmatch(only, name)]
    with concurrent.futures.ProcessPoolExecutor(mp_context=multiprocessing.get_context("fork")) as pool:
        return dict(zip(names, pool.map(answer, names, chunksize=8)))


def survey(only=None):
    """({class name: Answer}, {class name: reason it is missing})"""
    answers = for_every_class(answered, only)
    failures = {name: answer for name, answer in answers.items() if isinstance(answer, str)}
    return {name: answer for name, answer in answers.items() if name not in failures}, FAILURES | failures


def answered(name):
    try:
        return ask(CLASSES[name])
    except Exception as error:
        return reason(error)


def ask(cls):
    by_tie = {True: [], False: []}
    parts = {}
    answer = None
    problem = None

    def look(config):
        nonlocal answer
        model = build(cls, config)
        ties = any(getattr(part, "tie_word_embeddings", False) for part in variants.sub_configurations(model.config))
        rows = renamings(model)
        if answer is None:
            answer = Answer(model.base_model_prefix, ties, rows, set(), [])
        else:
            # What another language model or tower adds; it does not match the names of the others.
            answer.renamings += [row for row in rows if row not in answer.renamings]
        if any(type(module).__name__ in MODULES_TO_PATCH_FOR_QUANTIZATION for module in model.modules()):
            answer.replaces_experts = True
        parts.update(dict.fromkeys(generalised(path) for path in sub_models(model)))
        can_tie = any(getattr(part, "_tied_weights_keys", None) for part in model.modules())
        by_tie[ties].append(kinds(model))
        return ties, can_tie

    for make_configuration in variants.configurations(cls):
        first = answer is None
        try:
            config = make_configuration()
            ties, can_tie = look(config)
        except Exception as error:
            problem = problem or error
            if isinstance(error, ImportError):
                break
            continue
        if can_tie and first:
            for make in (variants.shallow, copy.deepcopy):
                try:
                    look(variants.with_ties(make(config), not ties))
                    break
                except Exception:
                    continue
    if not by_tie[True] and not by_tie[False]:
        raise problem
    for ties in (True, False):
        by_tie[ties] = by_tie[ties] or by_tie[not ties]
    answer.entries = merged(by_tie[True], by_tie[False])
    answer.parts = list(parts)
    return answer
