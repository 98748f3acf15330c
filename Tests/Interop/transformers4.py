"""Run under transformers 4.57: loads each (class, source, quantized) and prints a JSON report on stdout.

Arguments: a JSON list of objects {"name", "case", "model", "source", "out", "listed", "run"}; without "source" the model
is loaded by itself, a base model below a head for example, and from "plain" too, which is the same in 16 bits. It is a
program of its own because one process holds one version of transformers, and one program for all models because
importing is slow.
"""

import contextlib
import json
import sys

import torch
import transformers
from bitsandbytes.nn import Params4bit

import architectures
import oracle
from nibble import load


def printable(information: dict) -> dict[str, list[str]]:
    return {key: [str(item) for item in value] for key, value in information.items() if value}


def compare(row: dict) -> dict:
    model_class = getattr(transformers, row["model"])
    model, information = model_class.from_pretrained(row["out"], dtype="auto", output_loading_info=True)
    result = {
        "information": printable(information),
        "names": [name for name, parameter in model.named_parameters() if isinstance(parameter, Params4bit)],
    }
    if "plain" in row:
        _, plain = model_class.from_pretrained(row["plain"], dtype="auto", output_loading_info=True)
        result["plain"] = printable(plain)
    if "source" not in row:
        return result
    # Routers stay as they are, which bitsandbytes does only when it is told so.
    skipped = model.config.quantization_config.llm_int8_skip_modules if row["listed"] else None
    settings = oracle.bitsandbytes_config(llm_int8_skip_modules=skipped)
    reference = model_class.from_pretrained(row["source"], dtype="auto", quantization_config=settings)
    result["quantized"] = oracle.check_loaded_alike(model, reference)
    if not row["listed"]:
        loaded = load(row["out"], device="cpu", model_class=model_class)
        assert oracle.check_identical(loaded, model) == result["quantized"]
    if row["run"]:
        example = architectures.case(row["case"]).example(reference.config, reference.dtype)
        with torch.inference_mode():
            expected, logits = reference(**example).logits, model(**example).logits
        result["error"] = oracle.relative_error(logits, expected)
        result["finite"] = bool(torch.isfinite(expected).all())
    return result


def report(row: dict) -> dict:
    try:
        return compare(row)
    except Exception as error:  # one model's failure must not hide the others' results
        return {"failure": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    torch.set_num_threads(2)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with contextlib.redirect_stdout(sys.stderr):
        results = {row["name"]: report(row) for row in json.loads(sys.argv[1])}
    print(json.dumps({"version": transformers.__version__, "results": results}))
