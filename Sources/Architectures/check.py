#!/usr/bin/env python3
"""Holds the rule, as the Swift code applies it, to what transformers does, class by class.

    python check.py [--only REGEX] [--cases FILE]

For every class a small model is made on the meta device; its parameters get the names that `save_pretrained`
would give them; transformers' own loader code says for each of these which module it ends in, together with
the statistics of packed codes; and `replace_with_bnb_linear` says which modules are quantized. All that is
written to a file of cases, which the test `RulesAgainstTransformers` compares with `planWeights`.
"""

import argparse
import os
import subprocess
import sys
import tempfile

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.dont_write_bytecode = True

import survey  # noqa: E402
import variants  # noqa: E402
from transformers import BitsAndBytesConfig  # noqa: E402
from transformers.conversion_mapping import get_model_conversion_mapping  # noqa: E402
from transformers.core_model_loading import (  # noqa: E402
    WeightConverter,
    WeightRenaming,
    rename_source_key,
    revert_weight_conversion,
)
from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer  # noqa: E402
from transformers.quantizers.quantizers_utils import should_convert_module  # noqa: E402

STATISTICS = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".quant_state.bitsandbytes__nf4")


class Loader:
    """The part of `from_pretrained` that decides where a tensor of a checkpoint goes."""

    def __init__(self, model):
        quantizer = Bnb4BitHfQuantizer(BitsAndBytesConfig(load_in_4bit=True), pre_quantized=True)
        mapping = get_model_conversion_mapping(model, None, quantizer)
        self.own = {id(entry) for entry in mapping if isinstance(entry, WeightConverter)} - {
            id(entry) for entry in mapping[-1:]
        }
        self.renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
        self.converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
        self.state = model.state_dict()
        self.prefix = model.base_model_prefix

    def place(self, name):
        """(parameter, conversion that makes it or None); parameter is None when the model has none."""
        key, source = rename_source_key(name, self.renamings, self.converters, self.prefix, self.state)
        if key not in self.state and name in self.state:
            key, source = rename_source_key(name, [], [], self.prefix, self.state)
        conversion = next((c for c in self.converters if source in c.source_patterns), None)
        if conversion is not None and id(conversion) not in self.own:
            conversion = None
        return (key if key in self.state else None), conversion

    def parameters(self, key, conversion):
        first = conversion.target_patterns[0]
        return [key.replace(first, target, 1) for target in conversion.target_patterns]


def case(name, config):
    """Lines of one case."""
    model = survey.build(survey.CLASSES[name], config)
    saved = {key: tuple(value.shape) for key, value in revert_weight_conversion(model, model.state_dict()).items()}
    loader = Loader(model)
    tied = set(model.all_tied_weights_keys or {})
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    kinds = survey.kinds(model)
    rows, quantized, floating = [], set(), {path for path, kind in kinds.items() if kind in "otfl"}
    for key, shape in saved.items():
        parameter, conversion = loader.place(key)
        if parameter in tied:
            continue
        letter, module = "k", None
        if parameter is not None and conversion is not None:
            modules = [p.removesuffix(".weight") for p in loader.parameters(parameter, conversion)]
            floating |= {path for path in modules if kinds.get(path) in ("L", "C")}
        elif parameter is not None and parameter.endswith(".weight"):
            module = parameter.removesuffix(".weight")
            if kinds.get(module) in ("L", "C"):
                carried = key.endswith(".weight") and all(
                    loader.place(key + suffix) == (parameter, None) for suffix in STATISTICS
                )
                if carried and shape == shapes[parameter] and 0 not in shape:
                    letter = "q" if kinds[module] == "L" else "t"
                    quantized.add(module)
                else:
                    floating.add(module)
        rows.append((letter, module, key, shape))
    missing = {path for path, kind in kinds.items() if kind in "LC"} - quantized - floating
    if missing:
        raise ValueError(f"no saved tensor for {sorted(missing)[:3]}")
    # A module that a conversion has a part in stays float as a whole.
    quantized -= floating
    # So does one that the entry of another matches, which the loader takes for the end of a name.
    while accidents := {path for path in quantized if not should_convert_module(path, sorted(floating))}:
        quantized -= accidents
        floating |= accidents
    lines = [f"[{name}]"]
    for letter, module, key, shape in rows:
        lines.append(" ".join(["k" if module in floating else letter, key, *map(str, shape)]))
    return lines + [f"Q {path}" for path in sorted(quantized)] + [f"F {path}" for path in sorted(floating)]


def cases(name):
    """([lines], None) or (None, why there are none)"""
    cls = survey.CLASSES[name]
    try:
        config = next(variants.configurations(cls))()
    except Exception as error:
        return None, f"{name}: {survey.reason(error)}"
    for make in (variants.shallow, lambda config: config):
        try:
            return case(name, make(config)), None
        except Exception as error:
            problem = error
    return None, f"{name}: {survey.reason(problem)}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", help="regular expression of class names")
    parser.add_argument("--cases", help="write the cases here, and do not run the test")
    options = parser.parse_args()
    answers = survey.for_every_class(cases, options.only).values()
    lines = [line for answer, _ in answers for line in answer or []]
    skipped = [problem for _, problem in answers if problem]
    for line in skipped:
        print(f"not checked: {line}", file=sys.stderr)
    print(f"{sum(line.startswith('[') for line in lines)} cases, {len(skipped)} classes not checked", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        path = options.cases or os.path.join(folder, "cases.txt")
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        if not options.cases:
            root = os.path.dirname(os.path.dirname(survey.HERE))
            subprocess.run(
                ["make", "--no-print-directory", "test-optimized", "SWIFT_TEST_FLAGS=--filter RulesAgainstTransformers"],
                cwd=root,
                env={**os.environ, "NIBBLE_ARCHITECTURE_CASES": path},
                check=True,
            )


if __name__ == "__main__":
    main()
