"""Which class, configuration and dtype `nibble.load` gives: those of `from_pretrained`, new heads included."""

import json
import pathlib

import pytest
import torch
import transformers
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification,
    AutoModelForTokenClassification, BertConfig, BertForMaskedLM, BertModel, GPT2LMHeadModel, LlamaForCausalLM,
    LlamaModel, MistralForCausalLM, T5ForConditionalGeneration,
)  # fmt: skip

import architectures
import nibble as package
import oracle
from tool import ROOT

FIXTURE = ROOT / "fixtures" / "sql-llama"

pytestmark = pytest.mark.filterwarnings("ignore:.*no nibble-manifest.json")


def configured(folder: pathlib.Path, change) -> pathlib.Path:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    return folder


def without_dtype(config: dict) -> None:
    config.pop("dtype", None)
    config.pop("torch_dtype", None)


NO_DTYPE = {
    "absent": without_dtype,
    "null": lambda config: config.update(dtype=None),
    "null of old": lambda config: (without_dtype(config), config.update(torch_dtype=None)),
}


def same(folder: pathlib.Path, model_class=None, seed: int = 5, **options):
    """Loaded by both, with the same random numbers."""
    torch.manual_seed(seed)
    mine = package.load(folder, device="cpu", model_class=model_class, **options)
    torch.manual_seed(seed)
    theirs = (model_class or type(mine)).from_pretrained(folder, **{"dtype": "auto"} | options)
    oracle.check_identical(mine, theirs)
    return mine


@pytest.mark.parametrize("how", NO_DTYPE)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_configuration_without_a_dtype(how, dtype, tmp_path):
    torch.manual_seed(1)
    config = BertConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, vocab_size=90)
    BertModel(config).to(dtype).save_pretrained(tmp_path)
    configured(tmp_path, NO_DTYPE[how])
    assert same(tmp_path).dtype == dtype
    assert same(tmp_path, AutoModel).dtype == dtype
    assert package.load(tmp_path, device="cpu", dtype=None).dtype == dtype
    for explicit in (torch.float16, "float32"):
        same(tmp_path, dtype=explicit)
    assert package.load(tmp_path, device="cpu", torch_dtype=torch.float16).dtype == torch.float16


def rewritten(folder: pathlib.Path, change) -> pathlib.Path:
    tensors = load_file(folder / "model.safetensors")
    save_file({name: change(name, tensor) for name, tensor in tensors.items()}, folder / "model.safetensors",
              metadata={"format": "pt"})
    return folder


def test_weights_of_several_dtypes_and_no_dtype(tmp_path):
    """The first by name decides, wherever it lies in the file."""
    for name, first in (("lm_head.weight", torch.float32), ("model.norm.weight", torch.float16)):
        folder = tmp_path / name
        architectures.case("llama").create().to(torch.float16).save_pretrained(folder)
        rewritten(folder, lambda key, tensor: tensor.float() if key == name else tensor)
        configured(folder, without_dtype)
        assert same(folder).dtype == first


@pytest.mark.parametrize("options", [[], ["--max-shard-size", "100KB"]], ids=["one file", "shards"])
def test_4_bit_without_a_dtype(options, nibble, tmp_path):
    architectures.case("llama").create().save_pretrained(tmp_path / "source")
    configured(tmp_path / "source", without_dtype)
    nibble.quantize(tmp_path / "source", tmp_path / "out", *options)
    configured(tmp_path / "out", without_dtype)
    with pytest.warns(UserWarning, match="config.json"):
        same(tmp_path / "out")


def test_an_index_that_names_a_dtype(tmp_path):
    architectures.case("llama").create().save_pretrained(tmp_path, max_shard_size="100KB")
    configured(tmp_path, without_dtype)
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["metadata"]["dtype"] = "float16"
    path.write_text(json.dumps(index))
    assert same(tmp_path).dtype == torch.float16


HEADS = {
    "sequences": (AutoModelForSequenceClassification, {}, {"score.weight"}),
    "more labels": (AutoModelForSequenceClassification, {"num_labels": 5}, {"score.weight"}),
    "tokens": (AutoModelForTokenClassification, {"num_labels": 3}, {"score.weight", "score.bias"}),
    "the same": (AutoModelForCausalLM, {}, set()),
    "none": (AutoModel, {}, set()),
    "of a class": (LlamaModel, {}, set()),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads(name, caplog):
    model_class, options, new = HEADS[name]
    transformers.utils.logging.set_verbosity_warning()
    transformers.utils.logging.enable_propagation()
    try:
        model = same(FIXTURE, model_class, **options)
    finally:
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_propagation()
    reports = {record.getMessage() for record in caplog.records if "MISSING" in record.getMessage()}
    # One of each loader's.
    assert len(reports) == (2 if new else 0)
    assert all(parameter in report for parameter in new for report in reports)
    assert all(model.get_parameter(parameter).any() for parameter in new if parameter.endswith("weight"))
    if "num_labels" in options:
        assert model.config.num_labels == model.score.weight.shape[0] == options["num_labels"]


def test_heads_and_bodies_of_bert(tmp_path):
    """A pooler that the checkpoint's class has not lies within the body."""
    torch.manual_seed(1)
    config = BertConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, vocab_size=90)
    BertForMaskedLM(config).save_pretrained(tmp_path / "mlm")
    BertModel(config).save_pretrained(tmp_path / "body")
    for folder in ("mlm", "body"):
        for model_class in (AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification):
            same(tmp_path / folder, model_class)


def test_a_body_gets_a_head(tmp_path):
    model = architectures.case("llama").create()
    model.model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["LlamaModel"]
    assert isinstance(same(tmp_path, AutoModelForCausalLM), LlamaForCausalLM)
    assert isinstance(package.load(tmp_path, device="cpu"), LlamaModel)


@pytest.mark.parametrize("model_class, module", [
    (AutoModelForSequenceClassification, "score"), (AutoModelForTokenClassification, "score"),
])
def test_heads_on_4_bit_weights(model_class, module, quantized):
    """They stay in 16 bits, where bitsandbytes leaves them when it quantizes; the rest is as without the head."""
    model = package.load(quantized, device="cpu", model_class=model_class, num_labels=3)
    head = model.get_submodule(module)
    assert type(head) is torch.nn.Linear and head.weight.dtype == torch.bfloat16 and head.weight.any()
    assert head.weight.std().item() == pytest.approx(model.config.initializer_range, rel=0.2)
    assert module in model.config.quantization_config.llm_int8_skip_modules
    assert sum(isinstance(layer, Linear4bit) for layer in model.modules()) == 28
    body = AutoModel.from_pretrained(quantized)
    expected = dict(body.named_parameters())
    for name, parameter in model.model.named_parameters():
        assert oracle.same(parameter.data, expected[name].data), name
    tokens = torch.randint(3, 900, (2, 12))
    model.config.pad_token_id = None
    labels = torch.tensor([1] if model_class is AutoModelForSequenceClassification else [[1] * 12])
    model(input_ids=tokens[:1], labels=labels).loss.backward()
    assert head.weight.grad.any()


def test_a_head_that_is_trained(quantized):
    model = package.load(
        quantized, device="cpu", model_class=AutoModelForSequenceClassification, num_labels=3,
        peft_config=LoraConfig(r=4, target_modules=["q_proj"], task_type="SEQ_CLS"),
    )
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any(name.endswith("score.modules_to_save.default.weight") for name in trained)


@pytest.mark.parametrize("model_class", [None, AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaModel])
@pytest.mark.parametrize("name", [f"model.{name}.weight" for name in ("norm", "layers.1.mlp.up_proj", "embed_tokens")])
def test_what_is_missing_of_the_body_is_no_head(name, model_class, tmp_path):
    architectures.case("llama").create().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors[name]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    missing = name.removeprefix("model.") if model_class is LlamaModel else name
    with pytest.raises(package.CheckpointError, match=f"has no tensor '{missing}'"):
        package.load(tmp_path, device="cpu", model_class=model_class)


def test_a_head_of_its_own_that_is_missing_is_no_new_one(tmp_path):
    architectures.case("llama").create().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for model_class in (None, AutoModelForCausalLM):
        with pytest.raises(package.CheckpointError, match="has no tensor 'lm_head.weight'"):
            package.load(tmp_path, device="cpu", model_class=model_class)
    same(tmp_path, AutoModelForSequenceClassification)


def test_a_layer_more_than_there_are_is_no_head():
    for model_class in (None, AutoModelForSequenceClassification, AutoModel):
        with pytest.raises(package.CheckpointError, match="has no tensor '.*layers.4.input_layernorm.weight'"):
            package.load(FIXTURE, device="cpu", model_class=model_class, num_hidden_layers=5)


def test_classes_of_another_kind():
    """Whose tensors are there, they are loaded into; whose are not, they are refused, not filled with random values."""
    same(FIXTURE, MistralForCausalLM)
    for model_class in (BertModel, GPT2LMHeadModel, T5ForConditionalGeneration):
        with pytest.raises(package.CheckpointError, match=f"has no tensor .*, which {model_class.__name__} needs"):
            package.load(FIXTURE, device="cpu", model_class=model_class)
    with pytest.raises(package.CheckpointError, match="AutoModelForMaskedLM knows no class for a model of type llama"):
        package.load(FIXTURE, device="cpu", model_class=AutoModelForMaskedLM)


def test_labels_of_another_number(tmp_path):
    """Refused, as from_pretrained does, unless it is asked to begin anew."""
    head = AutoModelForSequenceClassification.from_pretrained(FIXTURE, num_labels=4)
    head.save_pretrained(tmp_path)
    same(tmp_path)
    with pytest.raises(package.CheckpointError, match="another shape of tensor 'score.weight'"):
        package.load(tmp_path, device="cpu", num_labels=2)
    model = same(tmp_path, AutoModelForSequenceClassification, num_labels=2, ignore_mismatched_sizes=True)
    assert model.score.weight.shape[0] == 2


def test_a_configuration_that_names_no_class(tmp_path):
    architectures.case("llama").create().save_pretrained(tmp_path)
    configured(tmp_path, lambda config: config.pop("architectures"))
    assert isinstance(package.load(tmp_path, device="cpu"), LlamaForCausalLM)


REMOTE = '''
from transformers import LlamaConfig, LlamaForCausalLM

class OwnConfig(LlamaConfig):
    model_type = "own-llama"

class OwnLlama(LlamaForCausalLM):
    config_class = OwnConfig
'''


def test_code_of_the_checkpoints_own(tmp_path, monkeypatch):
    architectures.case("llama").create().save_pretrained(tmp_path / "own")
    (tmp_path / "own" / "own_llama.py").write_text(REMOTE)
    configured(tmp_path / "own", lambda config: config.update(
        model_type="own-llama", architectures=["OwnLlama"],
        auto_map={"AutoConfig": "own_llama.OwnConfig", "AutoModelForCausalLM": "own_llama.OwnLlama"},
    ))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    model = package.load(tmp_path / "own", device="cpu", trust_remote_code=True)
    assert type(model).__name__ == "OwnLlama"
    with pytest.raises(package.CheckpointError, match="config.json"):
        package.load(tmp_path / "own", device="cpu")
