"""Models as Meta and Mistral publish them: the model of transformers that they were made from, byte for byte, by every
verb."""

import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import save_file

import checkpoint
import meta_files
from checkpoint import same
from tool import MISSING, REJECTED, UNSUPPORTED

PARAMS = {"dim": 64, "n_layers": 2, "n_heads": 8, "norm_eps": 1e-05, "multiple_of": 16}
# Name: what params.json says, the number of parts, what config.json says beside the shapes.
LLAMAS = {
    "llama1": (PARAMS | {"vocab_size": -1, "norm_eps": 1e-06}, 1, {"rope_theta": 10000.0, "max_position_embeddings": 4096}),
    "llama2": (PARAMS | {"vocab_size": -1, "n_kv_heads": 4, "ffn_dim_multiplier": 1.3}, 4,
               {"rope_theta": 10000.0, "max_position_embeddings": 4096}),
    "codellama": (PARAMS | {"rope_theta": 1000000, "ffn_dim_multiplier": 1.0, "vocab_size": 96}, 2,
                  {"rope_theta": 1000000.0, "max_position_embeddings": 16384}),
    "llama3": (PARAMS | {"n_kv_heads": 4, "rope_theta": 500000.0, "vocab_size": 96}, 4,
               {"rope_theta": 500000.0, "max_position_embeddings": 8192}),
    "llama31": (PARAMS | {"n_kv_heads": 2, "rope_theta": 500000.0, "vocab_size": 96, "use_scaled_rope": True}, 1,
                {"rope_theta": 500000.0, "max_position_embeddings": 131072, "factor": 8.0}),
    # Two parts have each head of keys.
    "repeated": (PARAMS | {"n_kv_heads": 2, "rope_theta": 500000.0, "vocab_size": 96}, 4,
                 {"rope_theta": 500000.0, "max_position_embeddings": 8192}),
}


def llama(params: dict, dtype=torch.bfloat16, **more) -> transformers.LlamaForCausalLM:
    torch.manual_seed(3)
    size = meta_files.intermediate_size(params["dim"], params.get("ffn_dim_multiplier", 1), params["multiple_of"])
    rope = {"rope_type": "default", "rope_theta": float(params.get("rope_theta", 10000.0))}
    if params.get("use_scaled_rope"):
        rope |= {"rope_type": "llama3", "factor": more.pop("factor", 8.0), "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                 "original_max_position_embeddings": 8192}
    config = transformers.LlamaConfig(
        hidden_size=params["dim"], intermediate_size=size, num_attention_heads=params["n_heads"], num_hidden_layers=2,
        num_key_value_heads=params.get("n_kv_heads", params["n_heads"]), rms_norm_eps=params["norm_eps"], vocab_size=96,
        rope_parameters=rope, max_position_embeddings=8192, **more)
    return transformers.LlamaForCausalLM(config).to(dtype).eval()


def made(name: str, folder, **more):
    """The model of transformers, its directory, and that of Meta."""
    params, parts, _ = LLAMAS[name]
    model = llama(params, **more)
    model.save_pretrained(folder / "hf")
    splits = name in ("llama3", "repeated")
    return model, folder / "hf", meta_files.write_parts(model, folder / "meta", parts, params, splits_tokens=splits)


def assert_same_logits(out, hf):
    """Of the two directories as transformers loads them; gives the first's model."""
    models = [transformers.AutoModelForCausalLM.from_pretrained(path, dtype="auto").eval() for path in (out, hf)]
    tokens = torch.arange(1, 40)[None]
    with torch.no_grad():
        assert same(models[0](tokens).logits, models[1](tokens).logits)
    return models[0]


def assert_same_tensors(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    assert not [name for name, tensor in expected.items() if not same(found[name], tensor)]


@pytest.mark.parametrize("name", LLAMAS)
def test_llama(nibble, tmp_path, name):
    """Every tensor, the sizes in config.json, and what the model computes."""
    model, hf, meta = made(name, tmp_path)
    out = tmp_path / "out"
    nibble.run("convert", meta, "-o", out, "--quiet")
    assert_same_tensors(checkpoint.tensors(out), checkpoint.tensors(hf))
    loaded = assert_same_logits(out, hf)
    assert type(loaded) is transformers.LlamaForCausalLM and loaded.dtype == torch.bfloat16
    keys = ["hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers",
            "rms_norm_eps", "vocab_size", "head_dim", "hidden_act", "tie_word_embeddings"]
    assert all(getattr(loaded.config, key) == getattr(model.config, key) for key in keys)
    expected = dict(LLAMAS[name][2])
    rope = loaded.config.rope_parameters
    assert rope["rope_theta"] == expected.pop("rope_theta") and rope.get("factor") == expected.pop("factor", None)
    assert {key: getattr(loaded.config, key) for key in expected} == expected


def test_tied_as_llama32(nibble, tmp_path):
    """One storage under two names: the embedding alone is written, and positions are stretched as in Llama 3.2."""
    params = LLAMAS["llama31"][0]
    model = llama(params, tie_word_embeddings=True, factor=32.0)
    folder = tmp_path / "meta"
    folder.mkdir()
    tensors = meta_files.meta_tensors(model)
    tensors["output.weight"] = tensors["tok_embeddings.weight"]
    torch.save(tensors, folder / "consolidated.00.pth")
    (folder / "params.json").write_text(json.dumps(params))
    nibble.run("convert", folder, "-o", tmp_path / "out", "--quiet")
    model.save_pretrained(tmp_path / "hf")
    loaded = assert_same_logits(tmp_path / "out", tmp_path / "hf")
    assert "lm_head.weight" not in checkpoint.tensors(tmp_path / "out")
    assert loaded.config.tie_word_embeddings and loaded.config.rope_parameters["factor"] == 32.0


def mistral(folder, **params):
    """The model, its directory, and that of Mistral's own form."""
    torch.manual_seed(5)
    config = transformers.MistralConfig(
        hidden_size=48, intermediate_size=80, num_attention_heads=4, num_hidden_layers=2, num_key_value_heads=2,
        head_dim=16, rms_norm_eps=1e-05, vocab_size=96, sliding_window=None,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0})
    model = transformers.MistralForCausalLM(config).to(torch.bfloat16).eval()
    model.save_pretrained(folder / "hf")
    own = folder / "mistral"
    own.mkdir()
    save_file(meta_files.meta_tensors(model), own / "consolidated.safetensors")
    (own / "params.json").write_text(json.dumps({
        "dim": 48, "n_layers": 2, "head_dim": 16, "hidden_dim": 80, "n_heads": 4, "n_kv_heads": 2, "norm_eps": 1e-05,
        "vocab_size": 96, "rope_theta": 1000000.0} | params))
    return model, folder / "hf", own


@pytest.mark.parametrize(("params", "window", "context"), [
    ({}, None, 32768), ({"sliding_window": 16, "max_seq_len": 64}, 16, 64), ({"sliding_window": "16"}, 16, 32768)])
def test_mistral(nibble, tmp_path, params, window, context):
    model, hf, own = mistral(tmp_path, **params)
    (own / "tekken.json").write_text("{}")
    nibble.run("convert", own, "-o", tmp_path / "out", "--quiet")
    assert_same_tensors(checkpoint.tensors(tmp_path / "out"), checkpoint.tensors(hf))
    assert (tmp_path / "out/tekken.json").exists() and not (tmp_path / "out/params.json").exists()
    config = json.loads((hf / "config.json").read_text()) | {"sliding_window": window}
    (hf / "config.json").write_text(json.dumps(config))
    loaded = assert_same_logits(tmp_path / "out", hf)
    assert type(loaded) is transformers.MistralForCausalLM
    assert (loaded.config.sliding_window, loaded.config.max_position_embeddings) == (window, context)


def test_files_of_transformers_win(nibble, tmp_path):
    """Beside model.safetensors, or numbered shards, the other form is neither read nor copied."""
    model, hf, own = mistral(tmp_path)
    expected = checkpoint.tensors(hf)
    shutil.copy(own / "params.json", hf)
    save_file({"output.weight": torch.zeros(1)}, hf / "consolidated.safetensors")
    report = nibble.json("convert", hf, "-o", tmp_path / "out")
    assert_same_tensors(checkpoint.tensors(tmp_path / "out"), expected)
    assert any("not copied: 'consolidated.safetensors'" in warning for warning in report["warnings"])
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    (tmp_path / "shards/consolidated.00.pth").write_bytes(b"")
    (tmp_path / "shards/params.json").write_text("{}")
    nibble.run("convert", tmp_path / "shards", "-o", tmp_path / "again", "--quiet")
    assert_same_tensors(checkpoint.tensors(tmp_path / "again"), expected)


def test_every_verb(nibble, tmp_path):
    """What each verb makes of it is what it makes of the directory of transformers."""
    _, hf, meta = made("llama2", tmp_path)
    (hf / "generation_config.json").unlink()
    rows = nibble.json("inspect", meta)
    assert rows["container"] == "consolidated"
    assert {row["name"]: (row["dtype"], row["shape"]) for row in rows["tensors"]} == {
        row["name"]: (row["dtype"], row["shape"]) for row in nibble.json("inspect", hf)["tensors"]}
    assert {row["file"] for row in rows["tensors"]} == {"consolidated.00.pth"}
    nibble.verify(meta)
    assert nibble.json("diff", meta, hf)["equal"]
    for verb, options in [("quantize", []), ("convert", ["--dtype", "float16"]), ("split", ["--max-shard-size", "20kB"])]:
        for name, source in [("a", meta), ("b", hf)]:
            nibble.run(verb, source, "-o", tmp_path / f"{verb}-{name}", *options, "--quiet")
        assert_same_tensors(checkpoint.tensors(tmp_path / f"{verb}-a"), checkpoint.tensors(tmp_path / f"{verb}-b"))
        assert checkpoint.config(tmp_path / f"{verb}-a")["num_key_value_heads"] == 4
    nibble.verify(tmp_path / "quantize-a", "--against", meta)
    nibble.verify(tmp_path / "convert-a", "--against", meta)
    fits = [nibble.json("fit", path, "--gpus", "1x24GiB", "--seq-len", "64") for path in (meta, hf)]
    assert fits[0]["parameters"] == fits[1]["parameters"]
    assert [row["perGPU"] for row in fits[0]["strategies"]] == [row["perGPU"] for row in fits[1]["strategies"]]
    tuned = shutil.copytree(hf, tmp_path / "tuned")
    tensors = checkpoint.tensors(tuned)
    tensors["model.layers.1.self_attn.q_proj.weight"] *= 2
    save_file(tensors, tuned / "model.safetensors", {"format": "pt"})
    for name, source in [("a", meta), ("b", hf)]:
        nibble.run("extract-lora", source, tuned, "-o", tmp_path / f"lora-{name}", "--rank", "2", "--quiet")
    loras = [checkpoint.shard_tensors(tmp_path / f"lora-{name}/adapter_model.safetensors") for name in "ab"]
    assert len(loras[0]) == 2
    assert_same_tensors(*loras)


def test_merge(nibble, tmp_path):
    import peft

    model, hf, meta = made("codellama", tmp_path)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    for name, base in [("a", meta), ("b", hf)]:
        nibble.run("merge", base, tmp_path / "adapter", "-o", tmp_path / name, "--quiet")
    assert_same_tensors(checkpoint.tensors(tmp_path / "a"), checkpoint.tensors(tmp_path / "b"))


def test_tokenizers(nibble, tmp_path):
    """A tokenizer.model goes along; of Llama 3's it is said that loaders need more. Lists of checksums stay behind."""
    _, _, meta = made("llama1", tmp_path)
    (meta / "checklist.chk").write_text("0  consolidated.00.pth\n")
    (meta / "tokenizer.model").write_bytes(b"\x0a\x0e\x0a\x05<unk>\x15\0\0\0\0\x18\2")
    report = nibble.json("convert", meta, "-o", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "model.safetensors", "config.json", "tokenizer.model", "nibble-manifest.json", "checksums.xxh128"}
    assert any("begin no text" in warning for warning in report["warnings"])
    assert not any("tiktoken" in warning for warning in report["warnings"])
    (meta / "tokenizer.model").write_text("IQ== 0\nIg== 1\n")
    report = nibble.json("convert", meta, "-o", tmp_path / "again")
    assert any("tiktoken" in warning for warning in report["warnings"])
    (meta / "tokenizer_config.json").write_text("{}")
    report = nibble.json("convert", meta, "-o", tmp_path / "whole")
    assert not any("tokenizer" in warning for warning in report["warnings"])


@pytest.mark.parametrize(("change", "code", "words"), [
    ({"dim": 128}, REJECTED, ["'tok_embeddings.weight'", "params.json"]),
    ({"n_layers": 3}, REJECTED, ["'layers.2.attention.wk.weight'", "missing"]),
    ({"n_layers": 1}, REJECTED, ["'layers.1.", "1 layers"]),
    ({"multiple_of": 64}, REJECTED, ["feed_forward"]),
    ({"moe": {"num_experts": 8}}, UNSUPPORTED, ["mixture of experts"]),
])
def test_params_that_say_otherwise(nibble, tmp_path, change, code, words):
    params, parts, _ = LLAMAS["llama2"]
    meta_files.write_parts(llama(params), tmp_path / "meta", parts, params | change)
    error = nibble.run("convert", tmp_path / "meta", "-o", tmp_path / "out", expect=code).stderr
    assert all(word in error for word in words) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["consolidated.01.pth", "params.json"])
def test_a_file_that_is_missing(nibble, tmp_path, name):
    _, _, meta = made("llama2", tmp_path)
    (meta / name).unlink()
    error = nibble.run("convert", meta, "-o", tmp_path / "out", expect=MISSING).stderr
    assert name in error
    # The last one leaves no gap: the shapes tell.
    if name != "params.json":
        (meta / "consolidated.02.pth").rename(meta / name)
        (meta / "consolidated.03.pth").rename(meta / "consolidated.02.pth")
        error = nibble.run("convert", meta, "-o", tmp_path / "out", expect=REJECTED).stderr
        assert "in each of 3 parts" in error


def test_heads_that_are_not_the_same(nibble, tmp_path):
    """Two parts have each head of keys: they must have the same."""
    _, _, meta = made("repeated", tmp_path)
    part = torch.load(meta / "consolidated.03.pth")
    part["layers.1.attention.wv.weight"][0, 0] += 1
    torch.save(part, meta / "consolidated.03.pth")
    error = nibble.run("convert", meta, "-o", tmp_path / "out", expect=REJECTED).stderr
    assert "layers.1.attention.wv.weight" in error and "not with the same values" in error
