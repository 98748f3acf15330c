#!/usr/bin/env python3
"""Everything that the tool writes and says about a set of tiny models, so that two builds can be compared.

    python outputs.py OLD NEW        # two binaries: what differs, byte for byte; exit code 1 if anything does
    python outputs.py --record NEW   # writes fixtures/outputs/digests.json, which test_outputs.py holds the tool to

Needs nothing but Python: models are made from a seeded generator. What depends on a BLAS kernel (merged and extracted
weights) is compared between two binaries and is not recorded.
"""

import argparse
import hashlib
import json
import pathlib
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECORD = ROOT / "fixtures/outputs/digests.json"
LLAMA, DIALECT = ROOT / "fixtures/sql-llama", ROOT / "fixtures/sql-llama-dialect"


# --- models ---------------------------------------------------------------------------------------

def values(random_, count, dtype):
    numbers = [random_.gauss(0, 0.04) for _ in range(count)]
    if dtype == "F32":
        return struct.pack(f"<{count}f", *numbers)
    if dtype == "F16":
        return struct.pack(f"<{count}e", *numbers)
    return b"".join(struct.pack("<f", number)[2:] for number in numbers)


def write_model(folder, shapes, config, dtype="BF16"):
    folder.mkdir()
    random_ = random.Random(",".join(shapes))
    header, data = {}, b""
    for name, shape in shapes.items():
        count = 1
        for length in shape:
            count *= length
        tensor = values(random_, count, dtype)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(tensor)]}
        data += tensor
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (folder / "config.json").write_text(json.dumps(config, indent=2))


def llama_layers(prefix, count, hidden, heads, mlp):
    shapes = {}
    for layer in range(count):
        at = f"{prefix}layers.{layer}."
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            rows = hidden if name in ("q_proj", "o_proj") else hidden // 2
            shapes[f"{at}self_attn.{name}.weight"] = [rows, hidden]
        shapes |= {f"{at}{name}.weight": [hidden] for name in ("input_layernorm", "post_attention_layernorm")}
        shapes |= {f"{at}{name}": shape for name, shape in mlp.items()}
    return shapes


def models(folder):
    dense = {f"mlp.{name}.weight": [128, 64] for name in ("gate_proj", "up_proj")} | {"mlp.down_proj.weight": [64, 128]}
    base = {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 160, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "torch_dtype": "bfloat16", "tie_word_embeddings": False,
    }
    around = {"model.embed_tokens.weight": [160, 64], "model.norm.weight": [64], "lm_head.weight": [160, 64]}
    write_model(folder / "llama", around | llama_layers("model.", 2, 64, 4, dense),
                base | {"architectures": ["LlamaForCausalLM"], "model_type": "llama"})
    write_model(folder / "llama16", around | llama_layers("model.", 2, 64, 4, dense),
                base | {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float16"}, "F16")
    odd = {name: [length + 1 if length == 128 else length for length in shape] for name, shape in dense.items()}
    write_model(folder / "odd", around | llama_layers("model.", 2, 64, 4, odd),
                base | {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "intermediate_size": 129}, "F32")
    experts = {"block_sparse_moe.gate.weight": [4, 64]}
    for expert in range(4):
        experts |= {f"block_sparse_moe.experts.{expert}.{name}.weight": [64, 128] if name == "w2" else [128, 64]
                    for name in ("w1", "w2", "w3")}
    write_model(folder / "mixtral", around | llama_layers("model.", 2, 64, 4, experts),
                base | {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": 4,
                        "num_experts_per_tok": 2})
    gpt2 = {"transformer.wte.weight": [160, 64], "transformer.wpe.weight": [128, 64],
            "transformer.ln_f.weight": [64], "transformer.ln_f.bias": [64]}
    for layer in range(2):
        for name, shape in {
            "ln_1.weight": [64], "ln_1.bias": [64], "ln_2.weight": [64], "ln_2.bias": [64],
            "attn.c_attn.weight": [64, 192], "attn.c_attn.bias": [192], "attn.c_proj.weight": [64, 64],
            "attn.c_proj.bias": [64], "mlp.c_fc.weight": [64, 256], "mlp.c_fc.bias": [256],
            "mlp.c_proj.weight": [256, 64], "mlp.c_proj.bias": [64],
        }.items():
            gpt2[f"transformer.h.{layer}.{name}"] = shape
    write_model(folder / "gpt2", gpt2, {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4,
        "n_positions": 128, "vocab_size": 160, "torch_dtype": "float32"}, "F32")
    broken = folder / "truncated"
    shutil.copytree(folder / "llama", broken)
    whole = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(whole[:-1])
    (folder / "empty").mkdir()


# --- commands -------------------------------------------------------------------------------------

FOUR_BIT = [
    [], ["--scheme", "fp4"], ["--no-double-quant"], ["--block-size", "128"], ["--quant-storage", "bfloat16"],
    ["--max-shard-size", "1MB"], ["--keep", "model.layers.0.*"], ["--target", "transformers-4"], ["--sha256"],
    ["--compute-dtype", "float16"],
]
GGUF = ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k_s", "q3_k_m", "q4_k_s", "q4_k_m",
        "q5_k_m", "q6_k", "iq4_nl", "iq4_xs"]


def commands():
    """[(name, arguments, recorded)]; a name is a path that the command may write to."""
    found = []

    def add(name, *arguments, recorded=True):
        found.append((name, [str(argument) for argument in arguments], recorded))

    for model in (LLAMA, "llama", "llama16", "odd", "mixtral", "gpt2"):
        short = pathlib.Path(model).name
        for options in FOUR_BIT if model in (LLAMA, "llama") else FOUR_BIT[:2]:
            out = "-".join([short, "q", *options]).replace("*", "").replace(" ", "")
            add(out, "quantize", model, "-o", out, *options)
        add(f"{short}-f32", "convert", model, "-o", f"{short}-f32", "--dtype", "float32")
        add(f"{short}-keep", "convert", model, "-o", f"{short}-keep")
        add(f"{short}-split", "split", model, "-o", f"{short}-split", "--max-shard-size", "1MB")
        add(f"{short}-join", "join", f"{short}-split", "-o", f"{short}-join")
        add(f"{short}-back", "convert", f"{short}-q", "-o", f"{short}-back", "--dtype", "bfloat16")
        add(None, "inspect", model, "--json")
        add(None, "inspect", f"{short}-q", "--raw")
        add(None, "verify", f"{short}-q", "--json")
        add(None, "verify", f"{short}-q", "--against", model, "--json")
        add(None, "diff", model, f"{short}-back", "--json")
        add(None, "fit", model, "--json")
        add(None, "quantize", model, "-o", "never", "--dry-run", "--json")
    add(None, "quantize", "llama", "-o", "never", "--dry-run")
    add("llama-q.again", "quantize", "llama-back", "-o", "llama-q.again")
    add("sql.f16.gguf", "convert", LLAMA, "-o", "sql.f16.gguf", "--dtype", "float16")
    for scheme in GGUF:
        if scheme[0] in "qi":
            add(f"sql.{scheme}.gguf", "quantize", LLAMA, "-o", f"sql.{scheme}.gguf", "--scheme", scheme)
    add("sql.pure.gguf", "quantize", "sql.f16.gguf", "-o", "sql.pure.gguf", "--scheme", "q4_k_m", "--pure")
    add("sql.types.gguf", "quantize", LLAMA, "-o", "sql.types.gguf", "--scheme", "q4_0", "--tensor-type", "ffn_down=q8_0",
        "--output-type", "q6_k", "--embedding-type", "q5_0")
    add("sql.parts.gguf", "quantize", LLAMA, "-o", "sql.parts.gguf", "--scheme", "q8_0", "--max-shard-size", "2MB")
    add("sql.again.gguf", "quantize", "sql.q8_0.gguf", "-o", "sql.again.gguf", "--scheme", "q4_0", "--force-requantize")
    add("sql.nf4.gguf", "quantize", "sql-llama-q", "-o", "sql.nf4.gguf", "--scheme", "q8_0")
    add("sql.dir", "convert", "sql.q4_0.gguf", "-o", "sql.dir")
    add("sql.dir32", "convert", "sql.q6_k.gguf", "-o", "sql.dir32", "--dtype", "float32")
    add("sql.gguf.nf4", "quantize", "sql.f16.gguf", "-o", "sql.gguf.nf4")
    for path in ("sql.f16.gguf", "sql.q4_k_m.gguf", "sql.parts-00001-of-00002.gguf"):
        add(None, "inspect", path, "--json")
        add(None, "verify", path, "--json")
    add(None, "verify", "sql.q4_0.gguf", "--against", LLAMA, "--json")
    add(None, "diff", "sql.f16.gguf", "sql.q8_0.gguf", "--json")
    add("adapter16", "convert", DIALECT, "-o", "adapter16", "--dtype", "float16")
    add("adapter.gguf", "convert", DIALECT, "-o", "adapter.gguf", "--base", LLAMA)
    add("adapter-split", "split", DIALECT, "-o", "adapter-split", "--max-shard-size", "1MB")
    add(None, "inspect", DIALECT, "--json")
    for base, out in ((LLAMA, "merged"), ("sql-llama-q", "merged-nf4")):
        add(out, "merge", base, DIALECT, "-o", out, recorded=False)
    add("merged.q", "merge", LLAMA, DIALECT, "-o", "merged.q", "--scheme", "nf4", recorded=False)
    add("merged.once", "merge", LLAMA, DIALECT, "-o", "merged.once", "--rounding", "once", "--dtype", "float32", recorded=False)
    add("merged.two", "merge", LLAMA, DIALECT, "adapter16", "-o", "merged.two", "--weight", "0.5", "--weight", "0.25",
        "--combine", "ties", "--density", "0.5", recorded=False)
    add("merged.gguf", "merge", LLAMA, DIALECT, "-o", "merged.gguf", "--scheme", "q4_k_m", recorded=False)
    add("extracted", "extract-lora", LLAMA, "merged", "--rank", "8", "-o", "extracted", recorded=False)
    add(None, "merge", LLAMA, DIALECT, "-o", "never", "--dry-run", "--json")
    add(None, "extract-lora", LLAMA, "merged", "--rank", "8", "-o", "never", "--dry-run", "--json", recorded=False)
    # What is refused.
    for arguments in (
        ["inspect", "missing"], ["inspect", "empty"], ["verify", "truncated"], ["quantize", "truncated", "-o", "never"],
        ["convert", "empty", "-o", "never"], ["quantize", "llama", "-o", "llama-q"], ["quantize", DIALECT, "-o", "never"],
        ["quantize", "llama-q", "-o", "never"], ["quantize", "llama", "-o", "never", "--scheme", "q9"],
        ["merge", "llama", DIALECT, "-o", "never"], ["convert", "llama", "-o", "never.safetensors"],
        ["quantize", "llama", "-o", "sql.f16.gguf"], ["diff", "llama", "gpt2"], ["split", "llama", "-o", "never", "--max-shard-size", "5"],
        ["quantize", "gpt2", "-o", "never.gguf", "--scheme", "q4_0"], ["extract-lora", "llama", "gpt2", "--rank", "4", "-o", "never"],
        ["help"], ["help", "quantize"], ["help", "convert"], ["help", "merge"], ["--version"], ["quantise", "llama"],
    ):
        add(None, *arguments)
    add("sql.q8_0.gguf", "edit", "sql.q8_0.gguf", "--set", "general.name=renamed")
    add("llama-keep", "edit", "llama-keep/model.safetensors", "--set", "note=text", "--rename", "format=kind")
    return found


# --- running them ---------------------------------------------------------------------------------

def digests(path):
    """{path below it: SHA-256}, of parts under a numbered name too."""
    parts = [path, *path.parent.glob(path.name.removesuffix(".gguf") + "-*-of-*.gguf*")] if path.suffix == ".gguf" else [path]
    parts += path.parent.glob(path.name + ".nibble-manifest.json")
    found = {}
    for part in parts:
        files = sorted(file for file in part.rglob("*") if file.is_file()) if part.is_dir() else [part] * part.exists()
        for file in files:
            contents = file.read_bytes()
            # Its version is no matter of the model's.
            contents = re.sub(rb'"generator": "nibble [^"]*"', b"", contents) if file.suffix == ".json" else contents
            if file.name != "checksums.xxh128":
                found[str(file.relative_to(path.parent))] = hashlib.sha256(contents).hexdigest()
    return found


def said(text):
    """Without what depends on the moment."""
    text = re.sub(r"(?m)^\w+: .* left\n", "", text.replace(str(ROOT), "ROOT"))
    text = re.sub(r'("seconds": )[\d.e-]+', r"\1…", text)
    text = re.sub(r"\d+(\.\d+)? (s\b|ms|[kMGT]?B/s)", "…", text)
    return re.sub(r"nibble \d+\.\d+\.\d+\S*", "nibble VERSION", text)


def run(binary, only_recorded=False):
    """{what was run: {files, output, errors, code}}"""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        models(folder)
        for name, arguments, recorded in commands():
            if only_recorded and not recorded:
                continue
            result = subprocess.run([binary, *arguments], cwd=folder, capture_output=True, text=True)
            found[said(" ".join(arguments))] = {
                "code": result.returncode, "output": said(result.stdout), "errors": said(result.stderr),
                "files": digests(folder / name) if name else {},
            }
            assert not (folder / "never").exists(), arguments
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--record", action="store_true")
    parser.add_argument("binaries", nargs="+", metavar="BINARY")
    options = parser.parse_args()
    binaries = [str(pathlib.Path(binary).resolve()) for binary in options.binaries]
    if options.record:
        found = {name: entry["files"] for name, entry in run(binaries[0], only_recorded=True).items() if entry["files"]}
        RECORD.parent.mkdir(exist_ok=True)
        RECORD.write_text(json.dumps(found, indent=1) + "\n")
        return 0
    old, new = (run(binary) for binary in binaries)
    faults = 0
    for name, entry in old.items():
        for key, value in entry.items():
            if new[name][key] != value:
                faults += 1
                print(f"{name}\n  {key}:\n    old: {value}\n    new: {new[name][key]}")
    print(f"{len(old)} commands, {sum(len(entry['files']) for entry in old.values())} files, {faults} differences")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
