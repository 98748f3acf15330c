"""`python -m nibble.calibrate`: what it measures layer by layer is what hooks on the whole model see at once."""

import json
import pathlib
import shutil

import gguf
import numpy as np
import pytest
import torch
from safetensors import safe_open

import gguf_families
from calibration import TEXT, Statistics, Whole, calibrate, packed, tokenizer, whole
from tool import ROOT, Nibble

# Sums over float64 are rounded once to float32, which is half a unit of 2⁻²³; their own order is beyond that.
ROUNDED = 2.0**-23

@pytest.fixture(scope="module")
def text(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT)
    return path


# Where the checkpoint has the experts of a parameter: names of the parts of each expert's first weight, and the second.
SINGLE = {
    "qwen3-moe": ("mlp.experts.{}.gate_proj", "mlp.experts.{}.up_proj", "mlp.experts.{}.down_proj"),
    "qwen2-moe": ("mlp.experts.{}.gate_proj", "mlp.experts.{}.up_proj", "mlp.experts.{}.down_proj"),
    "mixtral": ("block_sparse_moe.experts.{}.w1", "block_sparse_moe.experts.{}.w3", "block_sparse_moe.experts.{}.w2"),
}
SHORT = {"llama", "gemma2", "gpt2", "qwen3-moe"}
ROWS = [pytest.param(row, id=row.name, marks=[] if row.name in SHORT else [pytest.mark.long])
        for row in gguf_families.FAMILIES if row.name != "llama-headless"]


@pytest.mark.parametrize("row", ROWS)
def test_whole_model(row, families, text, tmp_path):
    directory = families.directory(row)
    calibrate(directory, text, "-o", tmp_path / "s", "--tokens", 512, "--seq-len", 64, "--hessian", "--quiet")
    found = Statistics(tmp_path / "s")
    expected = whole(directory, packed(directory, text, 512, 64))
    assert not (tmp_path / "s.partial").exists()
    compare(row, directory, found, expected)


def compare(row, directory, found: Statistics, expected: Whole) -> None:
    with_files = set()
    for path in directory.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            with_files |= set(file.keys())
    assert set(found.modules) <= with_files
    seen = set()
    for name, squares in expected.squares.items():
        names = in_checkpoint(row, name, with_files)
        for weight in names:
            seen.add(weight)
            torch.testing.assert_close(found.of(weight).double(), squares, rtol=ROUNDED, atol=1e-30)
            assert found.of(weight, "counts").tolist() == [expected.counts[name]]
            gram = found.of(weight, "gram")
            assert torch.equal(gram, gram.T) and torch.equal(gram.diagonal(), found.of(weight))
            # Products of 512 tokens summed in float32: each sum is off by at most that many half units of Σ|x·x|.
            bound = 512 * 2.0**-24 * (squares[:, None] * squares[None, :]).sqrt() + 1e-30
            assert ((gram.double() - expected.grams[name]).abs() <= bound).all()
    assert seen == set(found.modules)
    assert {f"{name}.{part}" for name in found.modules.values() for part in ("sums", "counts", "gram")} == set(
        found.tensors)


def in_checkpoint(row, name: str, known: set[str]) -> list[str]:
    """The tensors of the checkpoint that a module's weight is."""
    experts, _, rest = name.partition(".experts.")
    if rest:
        first, second, last = SINGLE[row.name]
        expert = rest[rest.index("[") + 1 : -1]
        layer = experts.removesuffix(".mlp")
        parts = (first, second) if rest.startswith("gate_up") else (last,)
        return [f"{layer}.{part.format(expert)}.weight" for part in parts]
    for other in (name, name.replace(".mlp.gate.", ".block_sparse_moe.gate."), name.removeprefix("transformer."),
                  name.replace("model.language_model.", "language_model.model.")):
        if other in known:
            return [other]
    assert name == "lm_head.weight", name
    return [next(other for other in known if other.endswith(("embed_tokens.weight", "wte.weight")))]


def llama(families) -> pathlib.Path:
    return families.directory(gguf_families.family("llama"))


def test_names_and_metadata(families, text, tmp_path):
    """What shares an input has one entry, named after the first."""
    calibrate(llama(families), text, text, "-o", tmp_path / "s", "--tokens", 100, "--seq-len", 32, "-q")
    found = Statistics(tmp_path / "s")
    layer = "model.layers.1"
    assert {name: given for name, given in found.modules.items() if name.startswith(layer)} == {
        f"{layer}.{module}.weight": f"{layer}.{given}" for module, given in {
            "self_attn.q_proj": "self_attn.q_proj", "self_attn.k_proj": "self_attn.q_proj",
            "self_attn.v_proj": "self_attn.q_proj", "self_attn.o_proj": "self_attn.o_proj",
            "mlp.gate_proj": "mlp.gate_proj", "mlp.up_proj": "mlp.gate_proj", "mlp.down_proj": "mlp.down_proj",
        }.items()
    }  # fmt: skip
    texts = json.loads(found.metadata["texts"])
    assert [entry["file"] for entry in texts] == ["text.txt"] * 2 and texts[0] == texts[1]
    plain = {key: found.metadata[key] for key in ("format", "version", "tokens", "sequences", "seq_len")}
    assert plain == {
        "format": "nibble-statistics", "version": "1", "tokens": "100", "sequences": "4", "seq_len": "32"}
    assert all(tensor.dtype == torch.float32 for tensor in found.tensors.values())
    assert not any(name.endswith(".gram") for name in found.tensors)


MESSAGES = [{"role": "user", "content": "select city"}, {"role": "assistant", "content": "from banks"}]
TEMPLATE = "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}\n{% endfor %}"


def test_documents_and_chats(families, tmp_path):
    """Each document by itself: what is measured is what each is without padding; messages come through the template."""
    directory = copy_of(llama(families), tmp_path / "model")
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    (directory / "tokenizer_config.json").unlink()
    (directory / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": TEMPLATE}))
    lines = [{"text": "select name from banks"}, {"messages": MESSAGES}, {"text": TEXT[:300]}, {"text": "gold"}]
    (tmp_path / "chat.jsonl").write_text("\r\n\n".join(json.dumps(line) for line in lines) + "\n")
    calibrate(directory, tmp_path / "chat.jsonl", "-o", tmp_path / "s", "--no-pack", "--seq-len", 50, "-q")
    words = tokenizer(directory)
    chat = words("<user>select city\n<assistant>from banks\n", add_special_tokens=False)["input_ids"]
    documents = [words(line["text"])["input_ids"] if "text" in line else chat for line in lines]
    assert len(documents[2]) > 50
    pieces = [ids[start : start + 50] for ids in documents for start in range(0, len(ids), 50)]
    # Those of one length go through together.
    alike = {len(ids): [other for other in pieces if len(other) == len(ids)] for ids in pieces}
    expected = whole(directory, [torch.tensor(ids) for ids in alike.values()])
    found = Statistics(tmp_path / "s")
    assert found.metadata["sequences"] == str(len(pieces))
    assert found.metadata["tokens"] == str(sum(map(len, documents)))
    for name, squares in expected.squares.items():
        torch.testing.assert_close(found.of(name).double(), squares, rtol=ROUNDED, atol=0)


def copy_of(directory: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
    """Of links, any of which may be replaced."""
    out.mkdir()
    for path in directory.iterdir():
        (out / path.name).symlink_to(path)
    return out


@pytest.mark.parametrize("name", ["qwen3-moe", pytest.param("mixtral", marks=pytest.mark.long)])
def test_unreached_experts(name, families, text, tmp_path, capsys):
    """One token comes to two experts of four."""
    calibrate(families.directory(gguf_families.family(name)), text, "-o", tmp_path / "s", "--tokens", 1, "--seq-len", 8)
    found = Statistics(tmp_path / "s")
    _, up, down = SINGLE[name]
    for part in (up, down):
        counts = [found.of(f"model.layers.0.{part.format(expert)}.weight", "counts").item() for expert in range(4)]
        assert sorted(counts) == [0, 0, 1, 1]
        for expert, count in enumerate(counts):
            assert bool(found.of(f"model.layers.0.{part.format(expert)}.weight").any()) == bool(count)
    # Two layers, two experts, two inputs.
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("no token came to 8 inputs: model.layers.0.")]


def test_stacked_experts(tmp_path, text):
    """Of gpt-oss: one tensor of the checkpoint for all experts, transposed."""
    row = gguf_families.Family("gpt-oss", "GptOssForCausalLM", gguf_families.sizes(
        num_local_experts=4, num_experts_per_tok=2, head_dim=32, sliding_window=8))
    directory = row.save(tmp_path)
    calibrate(directory, text, "-o", tmp_path / "s", "--tokens", 256, "--seq-len", 64, "-q")
    found = Statistics(tmp_path / "s")
    expected = whole(directory, packed(directory, text, 256, 64))
    for part in ("gate_up_proj", "down_proj"):
        name = f"model.layers.1.mlp.experts.{part}"
        assert found.modules[name] == name
        for expert in range(4):
            squares = expected.squares[f"{name}[{expert}]"]
            torch.testing.assert_close(found.of(name)[expert].double(), squares, rtol=ROUNDED, atol=1e-30)
            assert found.of(name, "counts")[expert] == expected.counts[f"{name}[{expert}]"]


def test_four_bits(nibble: Nibble, quantized, text, tmp_path):
    """A 4-bit model is measured as the 16-bit one that its codes stand for."""
    nibble.run("convert", quantized, "-o", tmp_path / "plain")
    for name, directory in {"packed": quantized, "dequantized": tmp_path / "plain"}.items():
        calibrate(directory, text, "-o", tmp_path / name, "--tokens", 64, "--seq-len", 32, "-q")
    one, other = Statistics(tmp_path / "packed"), Statistics(tmp_path / "dequantized")
    assert one.modules == other.modules and one.tensors.keys() == other.tensors.keys()
    assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)


# The same moments for llama.cpp

@pytest.mark.parametrize("name", [
    "llama", "qwen3-moe", *(pytest.param(row.name, marks=pytest.mark.long) for row in gguf_families.FAMILIES
                            if row.name not in ("llama", "qwen3-moe", "llama-headless"))])
def test_imatrix(name, families, text, nibble: Nibble, tmp_path):
    """Every matrix of the GGUF model is there, as wide as it is, with the statistics of the weight it comes from."""
    directory = families.directory(gguf_families.family(name))
    calibrate(directory, text, "-o", tmp_path / "s", "--imatrix", tmp_path / "i.gguf", "--tokens", 96, "--seq-len", 32,
              "-q")
    found = Statistics(tmp_path / "s")
    nibble.quantize(directory, tmp_path / "x.gguf", "--scheme", "q8_0", "--imatrix", tmp_path / "i.gguf")
    reader = gguf.GGUFReader(tmp_path / "i.gguf")
    assert reader.fields["general.type"].contents() == "imatrix"
    assert reader.fields["imatrix.datasets"].contents() == ["text.txt"]
    assert [reader.fields[f"imatrix.chunk_{key}"].contents() for key in ("count", "size")] == [3, 32]
    measured = {tensor.name: tensor.data for tensor in reader.tensors}
    model = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "x.gguf").tensors}
    tied = "output.weight" not in model
    for tensor in model.values():
        if len(tensor.shape) < 2 or tensor.name.startswith(("token_embd", "position_embd")) and not (
            tied and tensor.name == "token_embd.weight"
        ):
            continue
        experts = int(tensor.shape[2]) if len(tensor.shape) > 2 else 1
        assert measured[f"{tensor.name}.in_sum2"].shape == (experts, int(tensor.shape[0])), tensor.name
        assert measured[f"{tensor.name}.counts"].shape == (experts, 1)
    if name == "llama":
        sums = found.of("model.layers.1.mlp.up_proj.weight").numpy()
        assert np.array_equal(measured["blk.1.ffn_up.weight.in_sum2"][0], sums)
    if name == "qwen3-moe":
        rows = [found.of(f"model.layers.1.mlp.experts.{expert}.down_proj.weight") for expert in range(4)]
        assert np.array_equal(measured["blk.1.ffn_down_exps.weight.in_sum2"], torch.stack(rows).numpy())


def test_imatrix_in_k_quants(nibble: Nibble, text, tmp_path):
    """It changes what is written, and the result says what it was measured on."""
    source = ROOT / "fixtures/sql-llama"
    calibrate(source, text, "-o", tmp_path / "s", "--imatrix", tmp_path / "i.gguf", "--tokens", 512, "--seq-len", 128,
              "-q")
    nibble.quantize(source, tmp_path / "plain.gguf", "--scheme", "q4_k_m")
    nibble.quantize(source, tmp_path / "x.gguf", "--scheme", "q4_k_m", "--imatrix", tmp_path / "i.gguf")
    reader, plain = gguf.GGUFReader(tmp_path / "x.gguf"), gguf.GGUFReader(tmp_path / "plain.gguf")
    assert reader.fields["quantize.imatrix.entries_count"].contents() == 4 * 7 + 1
    assert reader.fields["quantize.imatrix.chunks_count"].contents() == 4
    changed = [a.name for a, b in zip(reader.tensors, plain.tensors) if a.data.tobytes() != b.data.tobytes()]
    assert len([name for name in changed if name.startswith("blk.")]) == 28


def test_taken_by_quantize(nibble: Nibble, text, tmp_path):
    """For NF4, by the checkpoint's own names: every weight that is quantized was measured."""
    source = ROOT / "fixtures/sql-llama"
    calibrate(source, text, "-o", tmp_path / "s", "--tokens", 256, "--seq-len", 128, "--hessian", "-q")
    written = []
    for name, options in {"plain": [], "weighted": ["--importance"], "corrected": ["--feedback"]}.items():
        given = [*options, tmp_path / "s"] if options else []
        report = nibble.quantize(source, tmp_path / name, "--scale-search", "mse", *given)
        unexpected = ["not measured", "no correlations", "another config.json"]
        assert not [warning for warning in report["warnings"] if any(part in warning for part in unexpected)]
        written.append(b"".join(path.read_bytes() for path in sorted((tmp_path / name).glob("*.safetensors"))))
    assert len(set(written)) == 3
    # The same names and shapes, but perhaps another model.
    other = tmp_path / "other"
    shutil.copytree(source, other)
    (other / "config.json").write_text((other / "config.json").read_text() + " ")
    for options in (["--scale-search", "mse", "--importance"], ["--feedback"]):
        report = nibble.quantize(other, tmp_path / f"{options[-1]}", *options, tmp_path / "s")
        assert [warning for warning in report["warnings"] if "another config.json" in warning]
