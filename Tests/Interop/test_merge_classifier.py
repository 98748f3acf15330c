"""Adapters of classifiers on causal bases: the head that PEFT saves makes another class of the merged model."""

import json

import peft
import pytest
import torch
import transformers

import adapters
import architectures
import checkpoint
import oracle
import peft_merge
from adapters import quiet
from tool import REJECTED

pytestmark = pytest.mark.kernels

TASKS = {
    "SEQ_CLS": (transformers.AutoModelForSequenceClassification, "ForSequenceClassification"),
    "TOKEN_CLS": (transformers.AutoModelForTokenClassification, "ForTokenClassification"),
}
# The base, the task, its labels, the modules that are adapted.
ROWS = [
    ("llama", "SEQ_CLS", 2, ["q_proj", "v_proj"]),
    ("llama", "SEQ_CLS", 3, ["q_proj", "v_proj"]),
    ("llama", "SEQ_CLS", 1, ["q_proj"]),
    ("qwen2", "SEQ_CLS", 5, ["q_proj"]),
    ("gemma", "SEQ_CLS", 3, ["q_proj"]),
    ("gpt2", "SEQ_CLS", 4, ["c_attn"]),
    ("llama", "TOKEN_CLS", 4, ["q_proj"]),
]


def train(base, adapter, task: str, labels: int, targets: list[str], **settings) -> torch.nn.Module:
    """The model as PEFT has it, saved."""
    torch.manual_seed(3)
    model = TASKS[task][0].from_pretrained(base, dtype="auto", num_labels=labels, **settings)
    with quiet():
        model = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=8, task_type=task, target_modules=targets))
        adapters.fill(model, 11)
        model.save_pretrained(adapter)
    return model.eval()


def inputs(base: str, model) -> dict[str, torch.Tensor]:
    """One row of tokens: a base may have no token to pad with."""
    example = architectures.case(base).example(model.config, model.dtype)
    return {name: tensor[:1] for name, tensor in example.items()}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(map(str, row[:3])))
def test_class_and_labels_follow(row, bases, nibble, tmp_path):
    name, task, labels, targets = row
    base, adapter, out = bases[name], tmp_path / "adapter", tmp_path / "out"
    trained = train(base, adapter, task, labels, targets)
    expected = peft_merge.logits(trained, inputs(name, trained))
    report = nibble.json("merge", base, adapter, "-o", out)
    nibble.verify(out)
    config, old = checkpoint.config(out), checkpoint.config(base)
    stem = old["architectures"][0].removesuffix("ForCausalLM").removesuffix("LMHeadModel")
    assert config["architectures"] == [stem + TASKS[task][1]] == [type(trained.get_base_model()).__name__]
    assert any(config["architectures"][0] in warning for warning in report["warnings"]), report["warnings"]
    model, information = TASKS[task][0].from_pretrained(out, dtype="auto", output_loading_info=True)
    assert not any(information.values()), information
    assert model.config.num_labels == labels and model.config.id2label == trained.config.id2label
    result = peft_merge.logits(model.eval(), inputs(name, model))
    assert result.shape == expected.shape
    assert oracle.relative_error(result, expected) <= peft_merge.LOGIT_ERROR[model.dtype]
    # Nothing else of the configuration changed.
    for key in old.keys() - {"architectures", "id2label", "label2id"}:
        assert config[key] == old[key], key


def test_names_of_labels(bases, nibble, tmp_path):
    """A trainer saves the model's configuration beside the adapter, and with it what its labels are called."""
    base, adapter = bases["llama"], tmp_path / "adapter"
    names = {0: "select", 1: "insert", 2: "other"}
    trained = train(base, adapter, "SEQ_CLS", 3, ["q_proj"], id2label=names, label2id={v: k for k, v in names.items()},
                    problem_type="single_label_classification")
    trained.config.save_pretrained(adapter)
    nibble.json("merge", base, adapter, "-o", tmp_path / "out")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    assert config.id2label == names and config.label2id == {name: number for number, name in names.items()}
    assert config.problem_type == "single_label_classification"
    # One that is of another head is passed over.
    (adapter / "config.json").write_text(json.dumps({"id2label": {"0": "a", "1": "b"}, "problem_type": "regression"}))
    nibble.json("merge", base, adapter, "-o", tmp_path / "other")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "other")
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"} and config.problem_type is None


def test_into_four_bits(bases, nibble, tmp_path):
    base, adapter, out = bases["llama"], tmp_path / "adapter", tmp_path / "out"
    train(base, adapter, "SEQ_CLS", 3, ["q_proj"])
    nibble.json("merge", base, adapter, "-o", out, "--scheme", "nf4")
    nibble.verify(out)
    model, information = transformers.AutoModelForSequenceClassification.from_pretrained(out, output_loading_info=True)
    assert not any(information.values()), information
    assert model.score.weight.shape == (3, 64) and model.score.weight.dtype == torch.bfloat16
    assert torch.isfinite(peft_merge.logits(model.eval(), inputs("llama", model))).all()


def test_classifier_of_a_classifier(bases, nibble, tmp_path):
    """A base that has the head keeps its class and its labels; other labels do not fit it."""
    base = bases["llama-classifier"]
    labels = len(checkpoint.tensors(base)["score.weight"])
    train(base, tmp_path / "adapter", "SEQ_CLS", labels, ["q_proj"])
    nibble.json("merge", base, tmp_path / "adapter", "-o", tmp_path / "out")
    assert checkpoint.config(tmp_path / "out") == checkpoint.config(base)
    train(base, tmp_path / "more", "SEQ_CLS", labels + 1, ["q_proj"], ignore_mismatched_sizes=True)
    nibble.run("merge", base, tmp_path / "more", "-o", tmp_path / "refused", expect=REJECTED)
