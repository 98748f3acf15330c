"""`python -m nibble.calibrate` as a run: the same bytes however it came to them, little memory, and what it refuses."""

import fcntl
import json
import os
import pathlib
import signal
import sys

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import gguf_families
from calibration import TEXT, Statistics, calibrate
from nibble.calibrate import main, parser
from nibble.calibration.memory import give_back
from nibble.calibration.partial import Partial
from tool import EXISTS, MISSING, REJECTED, ROOT, UNSUPPORTED, USAGE

LOCKED, INTERRUPTED = 75, 130
SOURCE = ROOT / "fixtures/sql-llama"


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT)
    return path


def arguments(text: pathlib.Path, out: pathlib.Path) -> list:
    return [SOURCE, text, "-o", out, "--tokens", 300, "--seq-len", 64, "--hessian"]


@pytest.fixture(scope="module")
def straight(text, tmp_path_factory) -> bytes:
    """What a run gives that nothing happens to."""
    out = tmp_path_factory.mktemp("straight") / "s"
    calibrate(*arguments(text, out), "-q")
    return out.read_bytes()


def test_spilled(straight, text, tmp_path):
    """Hidden states in the file alone."""
    calibrate(*arguments(text, tmp_path / "s"), "--activation-memory", "1KB", "-q")
    assert (tmp_path / "s").read_bytes() == straight


@pytest.mark.parametrize("options", [[], ["--activation-memory", "1KB"]], ids=["memory", "file"])
def test_interrupted(options, straight, text, tmp_path, monkeypatch, capsys):
    """Two layers are finished, the third is interrupted; it begins with the third, whatever the limit of memory."""
    finish = Partial.finish_layer

    def finish_two(partial, *rest):
        if partial.done == 2:
            raise KeyboardInterrupt
        finish(partial, *rest)

    monkeypatch.setattr(Partial, "finish_layer", finish_two)
    calibrate(*arguments(text, tmp_path / "s"), expect=INTERRUPTED)
    assert "the same command goes on from" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "s").exists()
    monkeypatch.undo()
    calibrate(*arguments(text, tmp_path / "s"), *options)
    lines = capsys.readouterr().err.splitlines()
    assert any("2 of 5 steps are done" in line for line in lines)
    assert [line.partition(":")[0] for line in lines if " inputs, " in line] == ["layer 3 of 4", "layer 4 of 4"]
    assert (tmp_path / "s").read_bytes() == straight
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def forked(work) -> tuple[int, int]:
    """A child of this process, as importing torch anew takes longer than all the rest; where its errors are read."""
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        return child, read
    try:
        torch.set_num_threads(1)
        os.dup2(write, 2)
        sys.stderr = open(2, "w", closefd=False)
        work()
    finally:
        os._exit(1)


def test_killed(straight, text, tmp_path):
    """By a signal that cannot be caught, in whatever it does after the second layer."""
    child, read = forked(lambda: calibrate(*arguments(text, tmp_path / "s")))
    with open(read) as lines:
        for line in lines:
            if line.startswith("layer 2 of 4"):
                os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL and not (tmp_path / "s").exists()
    assert json.loads((tmp_path / "s.partial/state.json").read_text())["done"] >= 2
    calibrate(*arguments(text, tmp_path / "s"), "-q")
    assert (tmp_path / "s").read_bytes() == straight


@pytest.mark.parametrize("change", ["damaged", "other"])
def test_partial_of_another_run(change, straight, text, tmp_path, monkeypatch, capsys):
    """It is not taken up when it is not what this run would have left."""
    monkeypatch.setattr(Partial, "parts", lambda partial: (_ for _ in ()).throw(KeyboardInterrupt))
    rest = ["--seq-len", 32] if change == "other" else []
    calibrate(*arguments(text, tmp_path / "s"), *rest, expect=INTERRUPTED)
    monkeypatch.undo()
    if change == "damaged":
        hidden, = (tmp_path / "s.partial").glob("hidden-*")
        hidden.write_bytes(bytes(1) + hidden.read_bytes()[1:])
    calibrate(*arguments(text, tmp_path / "s"))
    assert (tmp_path / "s").read_bytes() == straight
    assert ("begun anew" in capsys.readouterr().err) == (change == "other")


def test_folder_of_somebody_else(text, tmp_path, capsys):
    """What lies in it is nobody's to remove."""
    (tmp_path / "s.partial").mkdir()
    (tmp_path / "s.partial/mine.txt").write_text("mine")
    calibrate(*arguments(text, tmp_path / "s"), expect=EXISTS)
    assert "is no interrupted run's, it has 'mine.txt' in it" in capsys.readouterr().err
    assert (tmp_path / "s.partial/mine.txt").read_text() == "mine"


def memory(key: str) -> int:
    """MiB, of what the system says of this process."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) >> 10


def test_memory(text, tmp_path):
    """24 layers of 8 MiB in bfloat16, 16 MiB in the float32 that they are run in: 192 MiB of the map and 384 MiB of copies
    if nothing were given back. One layer is 24 MiB, and what is computed with it takes some more."""
    config = transformers.LlamaConfig(
        vocab_size=1024, hidden_size=512, intermediate_size=2048, num_hidden_layers=24, num_attention_heads=8,
        num_key_value_heads=8, max_position_embeddings=256)  # fmt: skip
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in transformers.LlamaForCausalLM(config).state_dict().items()}
    directory = tmp_path / "large"
    directory.mkdir()
    row = (torch.arange(2048) % 251 - 125).to(torch.bfloat16) / 4096
    save_file({
        name: torch.ones(shape, dtype=torch.bfloat16) if len(shape) == 1 else row[: shape[1]].expand(shape).contiguous()
        for name, shape in shapes.items()
    }, directory / "model.safetensors", {"format": "pt"})  # fmt: skip
    assert (directory / "model.safetensors").stat().st_size > 192 << 20
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(directory)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).symlink_to(SOURCE / name)

    def work():
        give_back()
        # The highest so far is forgotten.
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        before = memory("VmHWM")
        calibrate(directory, text, "-o", tmp_path / "s", "--tokens", 256, "--seq-len", 128, "-q")
        print(f"grown by {memory('VmHWM') - before}", file=sys.stderr, flush=True)

    child, read = forked(work)
    with open(read) as lines:
        said = lines.read()
    os.waitpid(child, 0)
    assert said.startswith("grown by ") and int(said.split()[2]) < 128, said


def test_lock(text, tmp_path):
    (tmp_path / "s.partial").mkdir()
    with open(tmp_path / "s.partial/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        calibrate(*arguments(text, tmp_path / "s"), expect=LOCKED)


def test_help():
    lines = parser().format_help().splitlines()
    assert len(lines) <= 45 and max(map(len, lines)) <= 78


# What is refused

def copy(out: pathlib.Path, but: tuple[str, ...] = (), **settings) -> pathlib.Path:
    """The fixture, without some of its files, and with other settings in its configuration."""
    out.mkdir()
    for path in SOURCE.iterdir():
        if path.name not in but and path.name != "config.json":
            (out / path.name).symlink_to(path)
    (out / "config.json").write_text(json.dumps(json.loads((SOURCE / "config.json").read_text()) | settings))
    return out


def not_finite(out: pathlib.Path) -> pathlib.Path:
    """A weight of the second layer is infinite, and so what the third is given."""
    directory = copy(out)
    for path in list(directory.glob("*.safetensors")):
        tensors = load_file(path)
        if (name := "model.layers.1.mlp.down_proj.weight") in tensors:
            tensors[name][0, 0] = float("inf")
        path.unlink()
        save_file(tensors, path)
    return directory


def without_layers(out: pathlib.Path) -> pathlib.Path:
    """XLM has a list for each kind of module."""
    return gguf_families.Family("xlm", "XLMWithLMHeadModel", {
        "vocab_size": 1024, "emb_dim": 32, "n_layers": 2, "n_heads": 2}).save(out)


MODELS = {
    "no model": (lambda out: out, MISSING, "no such directory"),
    "name": (lambda out: pathlib.Path("acme/model"), MISSING, "hf download acme/model"),
    "file": (lambda out: SOURCE / "config.json", REJECTED, "its directory"),
    "no configuration": (lambda out: out.mkdir() or out, MISSING, "config.json: No such file"),
    "no tokenizer": (lambda out: copy(out, ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")), MISSING,
                     "no tokenizer"),
    "no weights": (lambda out: copy(out, ("model.safetensors.index.json",)), REJECTED, "no model.safetensors"),
    "classifier": (lambda out: copy(out, architectures=["LlamaForSequenceClassification"]), UNSUPPORTED,
                   "LlamaForSequenceClassification is no causal language model"),
    "quantized": (lambda out: copy(out, quantization_config={"quant_method": "gptq", "bits": 4}), UNSUPPORTED,
                  "quantized by gptq; `nibble convert`"),
    "more layers": (lambda out: copy(out, num_hidden_layers=5), REJECTED, "has no tensor 'model.layers.4."),
    "wider": (lambda out: copy(out, intermediate_size=640), REJECTED, "LlamaForCausalLM has [256, 640]"),
    "no layers": (without_layers, UNSUPPORTED, "XLMWithLMHeadModel has no list of layers"),
    "not finite": (not_finite, REJECTED, "layer 2: what 'model.layers.2.self_attn.q_proj.weight' is multiplied with"),
}  # fmt: skip


def refused(given: list, code: int, message: str, capsys) -> None:
    assert main([*map(str, given), "-q"]) == code
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith("nibble.calibrate: error: ") and message in line


@pytest.mark.parametrize("name", MODELS)
def test_models(name, text, tmp_path, capsys):
    make, code, message = MODELS[name]
    refused([make(tmp_path / "model"), text, "-o", tmp_path / "s", "--tokens", 64], code, message, capsys)
    # The partial folder of the one run that got as far as a layer stays.
    assert [path.name for path in tmp_path.glob("s*")] == (["s.partial"] if name == "not finite" else [])


TEXTS = {
    "no file": (None, "txt", MISSING, "text.txt: No such file"),
    "empty": (b"", "txt", REJECTED, "text.txt: no text in it"),
    "blank": (b" \n\t\n", "txt", REJECTED, "text.txt: no text in it"),
    "not UTF-8": (b"price \xe9 price", "txt", REJECTED, "text.txt: not text in UTF-8: byte 6"),
    "cut": (b"price \xc3", "txt", REJECTED, "text.txt: not text in UTF-8: byte 6"),
    "after enough": (b"price " * 200_000 + b"\xff", "txt", REJECTED, "text.txt: not text in UTF-8: byte 1200000"),
    "empty lines": (b"\n\n", "jsonl", REJECTED, "text.jsonl: no text in it"),
    "not JSON": (b'{"text": "price"}\n{"text": ', "jsonl", REJECTED, "text.jsonl: line 2: not JSON"),
    "no text": (b'\n{"content": "price"}', "jsonl", REJECTED, "text.jsonl: line 2: {\"text\": TEXT} or"),
    "both": (b'{"text": "price", "messages": []}', "jsonl", REJECTED, "text.jsonl: line 1: {\"text\": TEXT} or"),
    "no template": (b'{"messages": [{"role": "user", "content": "price"}]}', "jsonl", MISSING, "no chat template"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts(name, tmp_path, capsys):
    data, ending, code, message = TEXTS[name]
    if data is not None:
        (tmp_path / f"text.{ending}").write_bytes(data)
    refused([SOURCE, tmp_path / f"text.{ending}", "-o", tmp_path / "s", "--tokens", 64], code, message, capsys)
    assert [path.name for path in tmp_path.iterdir()] == ([f"text.{ending}"] if data is not None else [])


COMMANDS = {
    "no text": ([SOURCE, "-o", "s"], USAGE, "required: TEXT"),
    "no output": ([SOURCE, "{text}"], USAGE, "required: -o"),
    "no tokens": ([SOURCE, "{text}", "-o", "s", "--tokens", "0"], USAGE, "--tokens: '0' is not a count"),
    "no unit": ([SOURCE, "{text}", "-o", "s", "--activation-memory", "5"], USAGE, "'5' is not a size"),
    "unknown": ([SOURCE, "{text}", "-o", "s", "--tokns", "5"], USAGE, "unrecognized arguments: --tokns"),
    "too long": ([SOURCE, "{text}", "-o", "s", "--seq-len", "100000"], USAGE, "--seq-len 100000: the model knows"),
    "same file": ([SOURCE, "{text}", "-o", "s", "--imatrix", "./s"], USAGE, "name the same file"),
    "exists": ([SOURCE, "{text}", "-o", "{text}"], EXISTS, "exists; --force replaces it"),
    "matrix exists": ([SOURCE, "{text}", "-o", "s", "--imatrix", "{text}"], EXISTS, "exists; --force replaces it"),
    "a directory": ([SOURCE, "{text}", "-o", "."], EXISTS, ".: a directory"),
    "no directory": ([SOURCE, "{text}", "-o", "none/s"], EXISTS, "none: no such directory"),
    "not writable": ([SOURCE, "{text}", "-o", "/proc/s"], EXISTS, "/proc"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(name, text, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given, code, message = COMMANDS[name]
    refused([str(part).format(text=text) for part in given], code, message, capsys)
    assert text.read_text() == TEXT and not list(tmp_path.iterdir())


def test_replaces_when_told(text, tmp_path):
    (tmp_path / "s").write_text("old")
    calibrate(SOURCE, text, "-o", tmp_path / "s", "--tokens", 16, "--force", "-q")
    assert Statistics(tmp_path / "s").metadata["tokens"] == "16"


def test_without_gguf(text, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gguf", None)
    refused([SOURCE, text, "-o", tmp_path / "s", "--imatrix", tmp_path / "i"], UNSUPPORTED, "pip install gguf", capsys)


def test_too_little_text(text, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("select price")
    calibrate(SOURCE, tmp_path / "text.txt", "-o", tmp_path / "s")
    first = capsys.readouterr().err.splitlines()[0]
    assert first.endswith(" tokens found, 65536 asked for: all of them are used") and int(first.split()[0]) < 10
