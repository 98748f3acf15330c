"""`python -m nibble.calibrate`: what the linear layers of a model are given on calibration text."""

from __future__ import annotations

import argparse
import os
import re
import sys
import traceback
from typing import NoReturn

from .calibration.errors import (
    BUG, EXISTS, FAILED, INTERRUPTED, REJECTED, UNSUPPORTED, USAGE, Refusal, reason,
)  # fmt: skip
from .errors import CheckpointError, NoSuchTensorError, printable

NAME = "nibble.calibrate"
UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}

DESCRIPTION = """\
Runs a model over calibration text and writes down, for every linear layer,
the sum of squares of each of its inputs: which columns of a weight matter,
for quantization that is weighted. The model is run layer by layer, one
layer's weights in memory at a time. TEXT is UTF-8 text, or .jsonl with a line
{"text": ...} or {"messages": [...]} for each document."""

EPILOG = """\
An interrupted run goes on from its last finished layer when it is started
again with the same arguments; FILE.partial has what it needs for that.
Exit codes: 0 done, 2 command line, 65 input rejected, 66 missing, 69 not
supported, 73 output exists or cannot be made, 74 I/O, 75 another run is at
work, 130 interrupted."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Refusal(USAGE, f"{message}; --help tells more")


def parser() -> Parser:
    def width(prog: str) -> argparse.HelpFormatter:
        return argparse.RawDescriptionHelpFormatter(prog, max_help_position=26, width=78)

    found = Parser(
        prog=f"python -m {NAME}", description=DESCRIPTION, epilog=EPILOG, formatter_class=width, allow_abbrev=False,
        usage=f"python -m {NAME} MODEL TEXT... -o FILE [options]",
    )  # fmt: skip
    found.add_argument("model", metavar="MODEL", help="a directory of transformers, 16 or 32 bits, or 4-bit of Nibble")
    found.add_argument("texts", metavar="TEXT", nargs="+", help="files of text, in this order")
    found.add_argument("-o", "--output", metavar="FILE", required=True, help="safetensors of statistics")
    found.add_argument("--tokens", metavar="N", type=count, default=65536, help="at most so many tokens (65536)")
    found.add_argument("--seq-len", metavar="N", type=count, help="tokens of a sequence (512, or all that the model knows)")
    found.add_argument("--no-pack", action="store_true", help="each document by itself, not one after another")
    found.add_argument("--hessian", action="store_true", help="also the products of each two inputs")
    found.add_argument("--imatrix", metavar="FILE", help="also an importance matrix of llama.cpp (GGUF)")
    found.add_argument("--device", choices=["cpu", "cuda"], help="what to run on (a GPU if there is one)")
    found.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], help="of the run (float32 on the CPU, else the model's)")
    found.add_argument(
        "--activation-memory", metavar="SIZE", type=size, default=2 << 30,
        help="above it hidden states stay in a file (2GiB)",
    )  # fmt: skip
    found.add_argument("--force", action="store_true", help="replace outputs that exist")
    found.add_argument("-q", "--quiet", action="store_true", help="no progress and no notes")
    return found


def count(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,11}", text):
        raise argparse.ArgumentTypeError(f"'{printable(text)}' is not a count")
    return int(text)


def size(text: str) -> int:
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)\s*([A-Za-z]+)", text)
    if match is None or match[2].upper() not in UNITS:
        raise argparse.ArgumentTypeError(f"'{printable(text)}' is not a size, such as 2GiB or 500MB")
    return int(float(match[1]) * UNITS[match[2].upper()])


def check_outputs(options: argparse.Namespace) -> None:
    outputs = [options.output] if options.imatrix is None else [options.output, options.imatrix]
    if len({os.path.realpath(path) for path in outputs}) < len(outputs):
        raise Refusal(USAGE, "-o and --imatrix name the same file")
    for path in outputs:
        folder = os.path.dirname(path) or "."
        if os.path.isdir(path):
            raise Refusal(EXISTS, f"{path}: a directory")
        if os.path.lexists(path) and not options.force:
            raise Refusal(EXISTS, f"{path}: exists; --force replaces it")
        if not os.path.isdir(folder):
            raise Refusal(EXISTS, f"{folder}: no such directory")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise Refusal(EXISTS, f"{folder}: cannot be written to")


def main(arguments: list[str] | None = None) -> int:
    """The exit code. Errors are one line on standard error."""
    code, message, options = 0, "", None
    try:
        options = parser().parse_args(arguments)
        check_outputs(options)
        from .calibration.job import calibrate

        calibrate(options)
    except Refusal as refusal:
        code, message = refusal.code, str(refusal)
    except (CheckpointError, NoSuchTensorError) as error:
        code, message = REJECTED, str(error)
    except ModuleNotFoundError as error:
        code, message = UNSUPPORTED, str(error)
    except OSError as error:
        # Writing to a file that is open names none: what is written lies beside the output.
        place = error.filename or getattr(options, "output", None)
        code, message = FAILED, f"{place}: {reason(error)}" if place else reason(error)
    except MemoryError as error:
        code, message = FAILED, str(error) or "not enough memory"
    except KeyboardInterrupt:
        code, message = INTERRUPTED, "interrupted"
        if options is not None and os.path.exists(f"{options.output}.partial"):
            message += f"; the same command goes on from {options.output}.partial"
    except Exception as error:
        traceback.print_exc()
        code, message = BUG, f"internal: {type(error).__name__}: {error}"
    if code:
        print(f"{NAME}: error: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
