"""One calibration, from its arguments to its files."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from .. import __version__, guess
from ..checkpoint import Checkpoint
from ..errors import needs, printable
from . import texts as calibration_texts
from .errors import FAILED, MISSING, REJECTED, UNSUPPORTED, USAGE, Refusal, reason
from .imatrix import Matrix, Names
from .partial import Partial, move
from .statistics import stored, write

with needs("nibble.calibrate", "torch transformers accelerate", "nibble.open does without"):
    import torch
    import transformers

    from .measure import Measurement
    from .model import LayeredModel


@contextlib.contextmanager
def settings() -> Iterator[None]:
    """The same numbers in every run, and no words but ours."""
    # CUDA reads it when it begins.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    verbosity = transformers.utils.logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            torch.utils.deterministic.fill_uninitialized_memory = fill
            transformers.utils.logging.set_verbosity(verbosity)


def calibrate(options: argparse.Namespace) -> None:
    with settings():
        run(options)


def run(options: argparse.Namespace) -> None:
    say = (lambda line: None) if options.quiet else (lambda line: print(line, file=sys.stderr, flush=True))
    device = device_of(options.device)
    config = check_model(options.model)
    tokenizer = tokenizer_of(options.model)
    with Checkpoint(options.model) as checkpoint:
        wanted = getattr(torch, options.dtype) if options.dtype else torch.float32 if device.type == "cpu" else None
        model = LayeredModel(checkpoint, device, wanted)
        names = None
        if options.imatrix is not None:
            names = Names(model.config.model_type, len(model.layers))
        options.seq_len = length(model, options.seq_len)
        texts = calibration_texts.read(
            options.texts, tokenizer, options.tokens, options.seq_len, not options.no_pack)
        if not texts.tokens:
            raise Refusal(REJECTED, f"{', '.join(options.texts)}: no text in it")
        if texts.tokens < options.tokens:
            say(f"{texts.tokens} tokens found, {options.tokens} asked for: all of them are used")
        partial = Partial(options.output, fingerprint(options, checkpoint, model, texts, config))
        try:
            announce(model, texts, partial, say)
            measurement = Measurement(model, texts, partial, options.activation_memory, options.hessian)
            measurement.run(progress(len(model.layers), say))
            checkpoint.check_unchanged()
            finish(options, model, texts, partial, names, config, say)
        except BaseException:
            partial.close()
            if not partial.done:
                # Nothing that another run could use.
                partial.remove()
            raise
        partial.remove()
        partial.close()


def device_of(name: str | None) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise Refusal(UNSUPPORTED, "--device cuda: this torch has no GPU")
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def check_model(path: str) -> str:
    """The digest of its configuration."""
    if not os.path.exists(path):
        raise Refusal(MISSING, f"{path}: no such directory{guess.of_name(path)}")
    if not os.path.isdir(path):
        raise Refusal(REJECTED, f"{path}: {guess.of_file(path) or 'a file; what is run is its directory'}")
    try:
        with open(os.path.join(path, "config.json"), "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError as error:
        raise Refusal(MISSING, f"{os.path.join(path, 'config.json')}: {reason(error)}") from None


def tokenizer_of(path: str) -> Any:
    try:
        return transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as error:  # of many kinds, for as many reasons
        what = str(error).strip().splitlines()
        raise Refusal(MISSING, f"{path}: no tokenizer that can be used: {printable(what[0] if what else '')}") from None


def length(model: LayeredModel, asked: int | None) -> int:
    """Tokens of a sequence."""
    longest = getattr(model.config, "max_position_embeddings", None) or getattr(model.config, "n_positions", None)
    if not isinstance(longest, int):
        return asked or 512
    if asked is not None and asked > longest:
        raise Refusal(USAGE, f"--seq-len {asked}: the model knows {longest} positions")
    return asked or min(512, longest)


def fingerprint(
    options: argparse.Namespace, checkpoint: Checkpoint, model: LayeredModel, texts: calibration_texts.Texts,
    config: str,
) -> str:  # fmt: skip
    """Of all that the statistics depend on."""
    files = []
    for path in checkpoint.files:
        status = os.stat(path)
        files.append([os.path.basename(path), status.st_size, status.st_mtime_ns])
    known = [
        __version__, torch.__version__, transformers.__version__, model.device.type, str(model.dtype), options.hessian,
        config, files, texts.digest(),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def announce(model: LayeredModel, texts: calibration_texts.Texts, partial: Partial, say: Any) -> None:
    many = len(model.layers)
    say(f"{model.class_name}, {many} layers, {texts.tokens} tokens in {len(texts.sequences)} sequences, "
        f"on {model.device.type} in {str(model.dtype).removeprefix('torch.')}")
    if partial.was_other:
        say(f"{partial.path} is of other arguments or inputs: begun anew")
    elif partial.done:
        say(f"{partial.path}: {partial.done} of {many + 1} steps are done")
    if model.unused:
        say(f"{some(model.unused)}: no part of {model.class_name}, not measured")


def progress(layers: int, say: Any) -> Any:
    spent: list[float] = []

    def report(index: int, inputs: int, seconds: float, left: int) -> None:
        spent.append(seconds)
        what = f"layer {index + 1} of {layers}" if index < layers else "output"
        rest = round(left * sum(spent) / len(spent))
        say(f"{what}: {inputs} input{'s' if inputs != 1 else ''}, {seconds:.1f} s; {rest} s left")

    return report


def some(names: list[str]) -> str:
    """The first three of them, and how many there are."""
    first = ", ".join(map(printable, names[:3]))
    return first if len(names) <= 3 else f"{first} and {len(names) - 3} more"


def finish(
    options: argparse.Namespace, model: LayeredModel, texts: calibration_texts.Texts, partial: Partial,
    names: Names | None, config: str, say: Any,
) -> None:  # fmt: skip
    parts = partial.parts()
    modules = {weight: given for _, about in parts for weight, given in about["modules"].items()}
    unreached = [name for _, about in parts for name in about["unreached"]]
    if unreached:
        say(f"no token came to {len(unreached)} input{'s' if len(unreached) != 1 else ''}: {some(unreached)}")
    metadata = {
        "format": "nibble-statistics", "version": "1", "modules": json.dumps(modules), "tokens": str(texts.tokens),
        "sequences": str(len(texts.sequences)), "seq_len": str(options.seq_len), "texts": json.dumps(texts.files),
        "model": config,
    }  # fmt: skip
    made = partial.file("statistics.new")
    try:
        write(made, metadata, (tensor for part, _ in parts for tensor in stored(part)))
    except OSError as error:
        raise Refusal(FAILED, f"{options.output}: {reason(error)}") from None
    if names is not None:
        matrix = Matrix()
        for part, about in parts:
            matrix.add(part, about, names)
        if matrix.unnamed:
            say(f"{some(matrix.unnamed)}: no name in gguf, not in {options.imatrix}")
        beside = f"{options.imatrix}.new"
        try:
            matrix.write(beside, [file["file"] for file in texts.files], len(texts.sequences), options.seq_len)
            move(beside, options.imatrix)
        except OSError as error:
            raise Refusal(FAILED, f"{options.imatrix}: {reason(error)}") from None
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside)
    for part, _ in parts:
        part.close()
    move(made, options.output)
