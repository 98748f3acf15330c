"""The other side of the comparisons, in a process of its own.

    peer.py serve FOLDER       answers each line on stdin with one number on stdout:
                               quantize | dequantize: values per second of bitsandbytes, in memory,
                               over the linear weights of two layers of the checkpoint
    peer.py load FOLDER        answers each line on stdin with seconds on stdout: from_pretrained | nibble, which
                               checks digests | unchecked, which does not; each loads the 4-bit model onto the CPU and
                               then reads every weight once, because from_pretrained leaves that to the first use
    peer.py list FOLDER        a safe_open loop over every tensor; what it takes is the process
    peer.py whole SOURCE OUT   seconds of from_pretrained, quantizing, and save_pretrained
    peer.py merge BASE ADAPTER OUT
                               seconds of from_pretrained, loading the adapter, merging and save_pretrained
"""

import logging
import os
import pathlib
import sys
import time

from safetensors import safe_open

# Installed for the tests, imported by accelerate wherever it is found, and no part of what is measured here.
sys.modules["deepspeed"] = None

# bitsandbytes announces an optional kernel that it did not find.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def linear_weights(folder: str) -> list:
    found = []
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            wanted = [name for name in file.keys() if "_proj" in name and name.split(".")[2] in ("0", "1")]
            found += [file.get_tensor(name).clone() for name in wanted]
    return found


def serve(folder: str) -> None:
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    torch.set_num_threads(os.cpu_count() or 1)
    weights = linear_weights(folder)
    count = sum(weight.numel() for weight in weights)
    pairs = [quantize_4bit(weight, quant_type="nf4", compress_statistics=True) for weight in weights]
    print("ready", flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        match line.strip():
            case "quantize":
                for weight in weights:
                    quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
            case "dequantize":
                for packed, state in pairs:
                    dequantize_4bit(packed, state)
        print(count / (time.perf_counter() - started), flush=True)


def load(folder: str) -> None:
    import numpy
    import torch
    import transformers

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "Sources" / "Python"))
    import nibble

    torch.set_num_threads(os.cpu_count() or 1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    ways = {
        "from_pretrained": lambda: transformers.AutoModelForCausalLM.from_pretrained(folder),
        "nibble": lambda: nibble.load(folder, device="cpu", verify=True),
        "unchecked": lambda: nibble.load(folder, device="cpu", verify=False),
    }
    for way in ways.values():
        way()
    print("ready", flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        model = ways[line.strip()]()
        for parameter in model.parameters():
            data = parameter.data.view(-1).view(torch.uint8).numpy()
            numpy.add.reduce(data[: data.size // 8 * 8].view(numpy.uint64))
        print(time.perf_counter() - started, flush=True)
        del model


def list_tensors(folder: str) -> None:
    count = 0
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():
                piece = file.get_slice(name)
                piece.get_shape(), piece.get_dtype()
                count += 1
    print(count)


def whole(source: str, out: str) -> None:
    import torch
    import transformers

    torch.set_num_threads(os.cpu_count() or 1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    settings = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    started = time.perf_counter()
    model = transformers.AutoModelForCausalLM.from_pretrained(source, quantization_config=settings)
    model.save_pretrained(out)
    print(time.perf_counter() - started)


def merge(base: str, adapter: str, out: str) -> None:
    import peft
    import torch
    import transformers

    torch.set_num_threads(os.cpu_count() or 1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    started = time.perf_counter()
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    peft.PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(out)
    print(time.perf_counter() - started)


if __name__ == "__main__":
    {"serve": serve, "load": load, "list": list_tensors, "whole": whole, "merge": merge}[sys.argv[1]](*sys.argv[2:])
