"""What `nibble merge` refuses: adapters of other kinds, damaged ones, and words that it does not know."""

import dataclasses
import subprocess

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

import adapters
from adapters import CONFIG, PREFIX, WEIGHTS, Row, quiet, rewrite_config, row
from tool import MISSING, REJECTED, UNSUPPORTED, USAGE


def check_refused(result, needle: str, out) -> None:
    assert needle.lower() in result.stderr.lower(), result.stderr
    assert result.stderr.startswith("nibble: error: ") and result.stderr.count("\n") == 1, result.stderr
    assert not out.exists()


KINDS = {
    "IA³": peft.IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj"], feedforward_modules=[]),
    "LOHA": peft.LoHaConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]),
    "LOKR": peft.LoKrConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]),
    "ADALORA": peft.AdaLoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], total_step=10),
    "VERA": peft.VeraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]),
    "OFT": peft.OFTConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]),
    "prompt tuning": peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_are_refused_by_name(kind, bases, nibble, tmp_path):
    with quiet():
        adapters.save_adapter(row("plain-bf16"), bases["llama"], KINDS[kind], tmp_path / "adapter")
    result = nibble.run("merge", bases["llama"], tmp_path / "adapter", "-o", tmp_path / "out", expect=UNSUPPORTED)
    check_refused(result, kind, tmp_path / "out")


def test_unknown_kind_is_refused_by_name(bases, nibble, tmp_path):
    adapter = row("gaussian").create(bases["llama"], tmp_path / "adapter")
    rewrite_config(adapter, lambda config: config | {"peft_type": "NOT_YET_INVENTED"})
    result = nibble.run("merge", bases["llama"], adapter, "-o", tmp_path / "out", expect=UNSUPPORTED)
    check_refused(result, "NOT_YET_INVENTED", tmp_path / "out")


VARIANTS = {
    "alora_invocation_tokens": {"alora_invocation_tokens": [5, 6]},
    "kasa_config": {"kasa_config": {}},
    "pissa": {"init_lora_weights": "pissa"},
    "pissa_niter_4": {"init_lora_weights": "pissa_niter_4"},
    "olora": {"init_lora_weights": "olora"},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_are_refused_by_name(name, bases, nibble, tmp_path):
    """What depends on the prompt, and what changed its base while it was made."""
    adapter = Row(name, "llama", adapters.QUERY_VALUE | VARIANTS[name]).create(bases["llama"], tmp_path / "adapter")
    result = nibble.run("merge", bases["llama"], adapter, "-o", tmp_path / "out", expect=UNSUPPORTED)
    check_refused(result, name, tmp_path / "out")


@pytest.mark.parametrize("field, value, needle", [
    ("arrow_config", {"top_k": 2, "router_temperature": 1.0}, "arrow_config"),
    ("init_lora_weights", "corda", "corda"),
    ("init_lora_weights", "lora_ga", "lora_ga"),
    ("init_lora_weights", "loftq", "loftq"),
])
def test_other_variants_are_refused_by_name(field, value, needle, bases, nibble, tmp_path):
    """Those that take data or a router to make: the field is what counts."""
    adapter = row("gaussian").create(bases["llama"], tmp_path / "adapter")
    rewrite_config(adapter, lambda config: config | {field: value})
    result = nibble.run("merge", bases["llama"], adapter, "-o", tmp_path / "out", expect=UNSUPPORTED)
    check_refused(result, needle, tmp_path / "out")


QUERY = f"{PREFIX}model.layers.1.self_attn.q_proj"


def without(name: str):
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name}


def replaced(name: str, change):
    return lambda tensors: {key: change(tensor) if key == name else tensor for key, tensor in tensors.items()}


DAMAGES = {
    "A without B": without(f"{QUERY}.lora_B.weight"),
    "B without A": without(f"{QUERY}.lora_A.weight"),
    "no elements": replaced(f"{QUERY}.lora_A.weight", lambda tensor: torch.zeros(0)),
    "one dimension": replaced(f"{QUERY}.lora_B.weight", lambda tensor: tensor.flatten()),
    "another width": replaced(f"{QUERY}.lora_A.weight", lambda tensor: tensor[:, :-1].contiguous()),
    "another height": replaced(f"{QUERY}.lora_B.weight", lambda tensor: tensor[:-1].contiguous()),
    "another rank": replaced(f"{QUERY}.lora_B.weight", lambda tensor: tensor[:, :-1].contiguous()),
    "not a number": replaced(f"{QUERY}.lora_A.weight", lambda tensor: tensor.index_fill(1, torch.tensor(9), torch.nan)),
    "infinite": replaced(f"{QUERY}.lora_B.weight", lambda tensor: tensor.index_fill(0, torch.tensor(9), torch.inf)),
    "no such module": adapters.renamed(("layers.1.self_attn.q_proj", "layers.7.self_attn.q_proj")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_adapter_is_rejected(damage, bases, nibble, tmp_path):
    adapter = row("gaussian").create(bases["llama"], tmp_path / "adapter")
    save_file(DAMAGES[damage](load_file(adapter / WEIGHTS)), adapter / WEIGHTS)
    result = nibble.run("merge", bases["llama"], adapter, "-o", tmp_path / "out", expect=REJECTED)
    check_refused(result, "self_attn.q_proj", tmp_path / "out")


def test_unknown_tensor_is_refused(bases, nibble, tmp_path):
    adapter = row("gaussian").create(bases["llama"], tmp_path / "adapter")
    save_file(load_file(adapter / WEIGHTS) | {f"{QUERY}.lora_C.weight": torch.zeros(8, 8)}, adapter / WEIGHTS)
    result = nibble.run("merge", bases["llama"], adapter, "-o", tmp_path / "out", expect=UNSUPPORTED)
    check_refused(result, "lora_C", tmp_path / "out")


def test_bias_for_a_base_without_one_is_rejected(bases, nibble, tmp_path):
    adapter = Row("lora-bias", "llama", adapters.QUERY_VALUE | {"lora_bias": True}).create(
        bases["llama"], tmp_path / "adapter")
    result = nibble.run("merge", bases["llama"], adapter, "-o", tmp_path / "out", expect=REJECTED)
    check_refused(result, "lora_B.bias", tmp_path / "out")


def test_token_beyond_the_vocabulary_is_rejected(bases, nibble, tmp_path):
    adapter = row("tokens").create(bases["llama"], tmp_path / "adapter")
    rewrite_config(adapter, lambda config: config | {"trainable_token_indices": [3, 17, 64, 96]})
    result = nibble.run("merge", bases["llama"], adapter, "-o", tmp_path / "out", expect=REJECTED)
    check_refused(result, "96", tmp_path / "out")


def test_another_number_of_tokens_is_rejected(bases, nibble, tmp_path):
    adapter = row("tokens").create(bases["llama"], tmp_path / "adapter")
    rewrite_config(adapter, lambda config: config | {"trainable_token_indices": [3, 17, 64]})
    result = nibble.run("merge", bases["llama"], adapter, "-o", tmp_path / "out", expect=REJECTED)
    check_refused(result, "trainable_tokens_delta", tmp_path / "out")


def test_no_adapter_there(bases, nibble, tmp_path):
    (tmp_path / "empty").mkdir()
    for adapter in (tmp_path / "nowhere", tmp_path / "empty"):
        nibble.run("merge", bases["llama"], adapter, "-o", tmp_path / "out", expect=MISSING)


@pytest.mark.parametrize("options", [
    ["--rounding", "twice"], ["--combine", "average"], ["--density", "1.5"], ["--density", "-0.1"],
    ["--weight", "0.5", "--weight", "0.5"], ["--weight", "heavy"], ["--expert-layout", "other"],
    ["--dtype", "float8"], ["--base-as-trained", "int8"],
], ids=" ".join)
def test_usage(options, bases, nibble, tmp_path):
    adapter = row("gaussian").create(bases["llama"], tmp_path / "adapter")
    nibble.run("merge", bases["llama"], adapter, "-o", tmp_path / "out", *options, expect=USAGE)
    nibble.run("merge", bases["llama"], "-o", tmp_path / "out", expect=USAGE)
    assert not (tmp_path / "out").exists()


def test_members_of_peft_are_known(bases, nibble, tmp_path):
    """Whatever PEFT itself writes into adapter_config.json, no warning says that it is not known."""
    adapter = row("gaussian").create(bases["llama"], tmp_path / "adapter")
    written = (adapter / CONFIG).read_text()
    fields = [field.name for field in dataclasses.fields(peft.LoraConfig)]
    assert len(fields) > 40
    for name in [*fields, "not_a_member"]:
        (adapter / CONFIG).write_text(written)
        rewrite_config(adapter, lambda config: config | {name: config.get(name) or 1})
        # Some are refused then: what they say is known.
        command = [nibble.path, "merge", bases["llama"], adapter, "-o", tmp_path / "out", "--dry-run"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert ("passed over" in result.stderr) == (name == "not_a_member"), (name, result.stderr)
