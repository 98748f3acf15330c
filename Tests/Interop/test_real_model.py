"""A model that somebody trained, quantized and published, SmolLM2-135M-Instruct, through what Nibble does with a model."""


import gguf
import numpy as np
import pytest
import torch
import transformers

import llama
import oracle
import real_models

pytestmark = pytest.mark.long

QUESTIONS = ["What is the capital of France?", "Write the numbers from one to ten in words.", "Why is the sky blue?"]
# More than the first answer has, so that its end is seen too.
TOKENS = 24


@pytest.fixture(scope="module")
def model():
    return real_models.smollm2()


@pytest.fixture(scope="module")
def folder(model, nibble, tmp_path_factory):
    """As transformers loads it, in float32: every value that Q4_1 says."""
    out = tmp_path_factory.mktemp("real") / "float32"
    nibble.json("convert", model, "-o", out, "--dtype", "float32")
    nibble.verify(out)
    return out


@pytest.fixture(scope="module")
def again(folder, nibble):
    """GGUF once more."""
    out = folder.parent / "float32.gguf"
    nibble.json("convert", folder, "-o", out, "--dtype", "float32")
    nibble.verify(out)
    return out


def values(path) -> dict[str, np.ndarray]:
    return {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            for tensor in gguf.GGUFReader(path).tensors}


def test_inspect_and_verify(model, nibble):
    report = nibble.json("inspect", model)
    tensors = gguf.GGUFReader(model).tensors
    assert report["container"] == "gguf" and report["summary"]["parameters"] == 134_515_008
    mine = {tensor["name"]: (tensor["dtype"], tensor["bytes"], tensor["shape"]) for tensor in report["tensors"]}
    assert mine == {tensor.name: (tensor.tensor_type.name, tensor.n_bytes, [int(side) for side in tensor.shape[::-1]])
                    for tensor in tensors}
    nibble.verify(model)


def test_there_and_back(model, again):
    """Every value, and everything that llama.cpp computes and tokenizes by."""
    before, after = values(model), values(again)
    assert before.keys() == after.keys()
    for name, expected in before.items():
        assert after[name].dtype == np.float32 and np.array_equal(after[name], expected), name
    fields, others = (gguf.GGUFReader(path).fields for path in (model, again))
    kept = {name for name in fields if name.startswith(("llama.", "tokenizer."))}
    for name in kept - {"tokenizer.ggml.add_space_prefix"}:
        assert others[name].contents() == fields[name].contents(), name


@pytest.mark.kernels
def test_one_answer(folder, again):
    """llama.cpp from the float32 file, transformers from the float32 directory: the same tokens, to the end of the answer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    server = llama.Server(again)
    for question in QUESTIONS:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True)
        inputs = tokenizer(prompt, return_tensors="pt")
        with torch.inference_mode():
            found = model.generate(**inputs, do_sample=False, max_new_tokens=TOKENS)[0, inputs.input_ids.shape[1]:]
        answer = server.answer(prompt, TOKENS)
        assert answer.ids == found.tolist(), (answer.text, tokenizer.decode(found))
    assert "Paris" in server.answer(tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTIONS[0]}], tokenize=False, add_generation_prompt=True), TOKENS).text


@pytest.mark.kernels
def test_nf4(folder, nibble, tmp_path):
    """The codes are those of bitsandbytes, and the loaded model still knows its capital."""
    report = nibble.quantize(folder, tmp_path / "nf4")
    nibble.verify(tmp_path / "nf4")
    assert report["parameters"] == 134_515_008 and report["bytesOut"] < 0.35 * report["bytesIn"]
    # 7 linear layers in each of 30.
    assert oracle.check_checkpoint(tmp_path / "nf4", folder) == 210
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "nf4")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "nf4").eval()
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTIONS[0]}], add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        found = model.generate(**inputs, do_sample=False, max_new_tokens=8)[0, inputs.input_ids.shape[1]:]
    assert "Paris" in tokenizer.decode(found)
