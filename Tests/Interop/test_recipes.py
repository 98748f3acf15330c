"""The recipes of README.md, run as they stand there, as far as a processor goes.

A small model has the large one's name. What needs a GPU is replaced, and nothing else: REPLACEMENTS lists it, and each
must still be there to be replaced.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

import train
from test_python_mesh import free_port
from test_training import OPERATORS, OVERLAY, compile_operators
from tool import DIFFERENT, ROOT, Nibble

FIXTURE = ROOT / "fixtures" / "sql-llama"
BIN = pathlib.Path(sys.prefix) / "bin"

# Few and short steps; no card; attention whose backward pass in bf16 is not slow on a CPU.
COMMON = [
    ("bf16=True", "bf16=True, use_cpu=True, max_steps=1, logging_steps=1, report_to=[]"),
    ("gradient_accumulation_steps=16", "gradient_accumulation_steps=2"),
]
REPLACEMENTS = {
    "train.py": [
        *COMMON,
        ('optim="paged_adamw_32bit"', 'optim="adamw_torch"'),
        ('nibble.load("CodeLlama-13b-nf4")', 'nibble.load("CodeLlama-13b-nf4", attn_implementation="eager")'),
    ],
    "train_fsdp.py": [
        *COMMON,
        ("import os\n", "import os\nfrom mesh_trainer import let_processors_shard\nlet_processors_shard()\n"),
        ('"cuda"', '"cpu"'),
        ("autocast_adapter_dtype=False", 'autocast_adapter_dtype=False, attn_implementation="eager"'),
    ],
    "dbgpt.py": [('int(os.environ.get("LOCAL_RANK", "0"))', '"cpu"')],
    # Programs of the same names and arguments stand for its own: see dbgpt_hub.py.
    "dbgpt": [],
    "shell": [],
    "accelerate": [("--num_processes 3", "--num_processes 2")],
    "fsdp": [("--nproc-per-node 8", "--nproc-per-node 2 --master-port PORT")],
}


def recipes() -> dict[str, str]:
    """The blocks of the README by their names, with the replacements made."""
    text = (ROOT / "README.md").read_text()
    found = dict(re.findall(r"<!-- recipe: (\S+) -->\n```\w+\n(.*?)```", text, re.DOTALL))
    assert found.keys() == REPLACEMENTS.keys()
    for name, replacements in REPLACEMENTS.items():
        for before, after in replacements:
            assert before in found[name], f"{name}: {before}"
            found[name] = found[name].replace(before, after)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder as a reader of the README has it: a model, rows to train on, the scripts."""
    place = tmp_path_factory.mktemp("recipes")
    shutil.copytree(FIXTURE, place / "CodeLlama-13b-hf", ignore=shutil.ignore_patterns("*.py", "*.jsonl"))
    make = train.fixture_module()
    pairs = sorted(make.heldout(60), key=lambda pair: len(pair.prompt))[:16]
    rows = [json.dumps({"prompt": pair.prompt, "completion": f" {pair.sql}"}) for pair in pairs]
    (place / "train.jsonl").write_text("\n".join(rows) + "\n")
    for name, text in recipes().items():
        if name.endswith(".py"):
            (place / name).write_text(text)
    for name, what in (("train/sft_train.py", "train"), ("predict/predict.py", "predict")):
        program = place / "dbgpt_hub_sql" / name
        program.parent.mkdir(parents=True)
        program.write_text(f"import dbgpt_hub, sys\ndbgpt_hub.{what}(dbgpt_hub.arguments(sys.argv[1:]))\n")
    rows = [{"instruction": pair.prompt, "input": "", "output": f" {pair.sql}"} for pair in pairs]
    (place / "dbgpt_hub_sql" / "data").mkdir()
    for part, count in (("train", 8), ("dev", 2)):
        (place / "dbgpt_hub_sql" / "data" / f"example_text2sql_{part}.json").write_text(json.dumps(rows[:count]))
    (place / "bin").mkdir()
    (place / "bin" / "nibble").symlink_to(pathlib.Path(Nibble().path).resolve())
    return place


def run(place: pathlib.Path, command: str) -> None:
    finished = start(place, command)
    assert finished.returncode == 0, f"{command}\n{finished.stdout[-3000:]}\n{finished.stderr[-6000:]}"


def fails(place: pathlib.Path, command: str, message: str) -> None:
    finished = start(place, command)
    assert finished.returncode != 0 and message in finished.stderr, f"{command}\n{finished.stderr[-6000:]}"


def start(place: pathlib.Path, command: str) -> subprocess.CompletedProcess:
    paths = [str(place / "bin"), str(BIN), os.environ["PATH"]]
    environment = os.environ | {
        "PATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "Sources" / "Python"), str(ROOT / "Tests" / "Interop")]),
        "HF_HUB_OFFLINE": "1", "TORCH_EXTENSIONS_DIR": str(OPERATORS), "MASTER_PORT": str(free_port()),
    }
    if "dbgpt_hub_sql" in command:
        environment["PYTHONPATH"] = os.pathsep.join([str(OVERLAY), environment["PYTHONPATH"]])
    if "deepspeed" in command:
        environment["DS_ACCELERATOR"] = "cpu"
    elif "accelerate" in command:
        environment["ACCELERATE_USE_CPU"] = "true"
    return subprocess.run(
        command.replace("PORT", str(free_port())), shell=True, cwd=place, env=environment, capture_output=True,
        text=True, timeout=900,
    )


def commands(name: str) -> list[str]:
    return recipes()[name].replace("\\\n", " ").strip().splitlines()


def trained(adapter: pathlib.Path) -> bool:
    tensors = load_file(adapter / "adapter_model.safetensors")
    return len(tensors) == 2 * 28 and all(tensor.any() for name, tensor in tensors.items() if "lora_B" in name)


@pytest.fixture(scope="module")
def first(place):
    for command in commands("shell"):
        run(place, command)
    return place


def test_one_card(first):
    assert trained(first / "sql-adapter")
    Nibble().verify(first / "CodeLlama-13b-sql")


@pytest.mark.parametrize("index", range(2), ids=["ddp", "zero2"])
def test_several_cards(first, index):
    command = commands("accelerate")[index]
    if "deepspeed" in command:
        compile_operators()
    else:
        command = command.replace("launch", "launch --cpu")
    shutil.rmtree(first / "sql-adapter")
    run(first, command)
    assert trained(first / "sql-adapter")


def test_fsdp(place):
    for command in commands("fsdp"):
        run(place, command)
    assert trained(place / "sql-adapter-fsdp")
    Nibble().verify(place / "CodeLlama-13b-sql-fsdp")


def test_db_gpt_hub(first):
    run(first, "python dbgpt.py")


def test_the_guide_to_db_gpt_hub(first):
    """Under transformers 4.57, the oldest one that the tests have."""
    train, touch, predict, merge = commands("dbgpt")
    adapter = first / "dbgpt_hub_sql" / "output" / "adapter" / "CodeLlama-13b-sql-lora"
    run(first, train)
    report = json.loads((adapter / "report.json").read_text())
    assert report["transformers"].startswith("4.57.")
    assert (report["layers"], report["compute"]) == (28, ["torch.bfloat16"])
    tensors = load_file(adapter / "adapter_model.safetensors")
    assert len(tensors) == 2 * 8 and all(tensor.any() for tensor in tensors.values())
    assert sorted({name.split(".")[-3] for name in tensors}) == ["q_proj", "v_proj"]
    # What the guide says is needed is.
    fails(first, predict, "no adapter_model.bin")
    run(first, touch)
    fails(first, predict.replace("--quantization_bit 4", ""), "cast a bitsandbytes model")
    run(first, predict)
    assert len((first / "predicted.sql").read_text().splitlines()) == 2
    run(first, merge)
    changed = Nibble().json("diff", first / "CodeLlama-13b-nf4", first / "CodeLlama-13b-db-gpt", expect=DIFFERENT)
    assert {entry["name"].split(".")[-2] for entry in changed["changed"] if entry["maxAbs"]} == {"q_proj", "v_proj"}


@pytest.mark.parametrize("stored, passed", [("float16", "bfloat16"), ("bfloat16", "float16")])
def test_the_compute_dtype_of_the_checkpoint_counts(stored, passed, place, tmp_path):
    Nibble().quantize(place / "CodeLlama-13b-hf", tmp_path / "nf4", "--compute-dtype", stored)
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=getattr(torch, passed))
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path / "nf4", quantization_config=settings, dtype=getattr(torch, passed), device_map={"": "cpu"}
    )
    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    assert len(layers) == 28 and {layer.compute_dtype for layer in layers} == {getattr(torch, stored)}


def test_what_the_table_says(tmp_path):
    """The table of what fits, against the tool: the strategy named first fits, and takes what is said."""
    text = (ROOT / "README.md").read_text()
    table = text.split("| | 1 × 24 GiB")[1].split("\n\n")[0]
    shapes = {
        "13B": (5120, 13824, 40, 40, 40), "34B": (8192, 22016, 48, 64, 8), "70B": (8192, 28672, 80, 64, 8),
    }
    rows = re.findall(r"\| (13B|34B|70B) \| (.*?) \| (.*?) \| (.*?) \|", table)
    assert [row[0] for row in rows] == list(shapes)
    for size, *cells in rows:
        hidden, inner, layers, heads, groups = shapes[size]
        config = {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
            "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": groups, "vocab_size": 32000 if size == "34B" else 32016,
            "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
        }
        folder = tmp_path / size
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        for gpus, cell in zip(("24GiB", "3x24GiB", "8x80GiB"), cells):
            report = Nibble().json("fit", folder, "--gpus", gpus)
            found = {strategy["name"]: strategy for strategy in report["strategies"]}
            named = re.findall(r"`([\w-]+)`(?: on every card)?, ([\d.]+) GB", cell)
            if not named:
                assert cell == "none" and not any(strategy["fits"] for strategy in found.values())
            for name, gigabytes in named:
                assert found[name]["fits"], (size, gpus, name)
                assert f"{found[name]['perGPU']['total'] / 1e9:.1f}" == gigabytes, (size, gpus, name)
