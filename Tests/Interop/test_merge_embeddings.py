"""Adapters of embeddings, every way of adapting one side with every way of adapting the other: on models that tie the
two and that do not, with new tokens and without.

What was trained is the reference. PEFT saves enough of it to load it again, or it does not; where new rows are lost,
`nibble merge` says so instead of writing a model that nothing loads.
"""

import itertools
import pathlib

import peft
import pytest
import torch
import transformers

import adapters
import oracle
import peft_merge
from adapters import quiet
from architectures import F32, Case, text
from tool import REJECTED

pytestmark = pytest.mark.kernels

SIDES = {"embedding": "embed_tokens", "head": "lm_head"}
WAYS = ["nothing", "lora", "saved", "tokens"]
ROWS, NEW = 96, 8
# How the adapter is saved: as PEFT chooses, with both sides tied on purpose, without any embedding; or with rows of old
# tokens alone, though there are new ones.
KINDS = ["auto", "kept", "bare", "old"]


def trains(tied: bool, new: bool, kind: str, embedding: str, head: str) -> bool:
    """Whether there is something in the row that PEFT can train, and that no other row trains too."""
    if (embedding, head) == ("nothing", "nothing"):
        return new and kind == "auto"
    if kind == "kept":
        one_of_each = {("lora", "tokens"), ("saved", "lora"), ("saved", "tokens"), ("tokens", "lora")}
        return tied and (embedding, head) not in one_of_each | {("tokens", "saved")}
    if tied and (embedding, head) == ("tokens", "saved"):
        return False
    return kind == "auto" or new and (kind == "bare" or "tokens" in (embedding, head))


TABLE = [row for row in itertools.product([True, False], [False, True], KINDS, WAYS, WAYS) if trains(*row)]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embeddings")
    for name, tied in (("tied", True), ("untied", False)):
        case = Case(name, "LlamaForCausalLM", text(tie_word_embeddings=tied, vocab_size=ROWS), F32)
        case.create().save_pretrained(folder / name)
    with adapters.one_thread():
        yield folder


def load(path: pathlib.Path, new: bool, seed: int) -> transformers.PreTrainedModel:
    """As for training: new rows are drawn around the mean of the others, so that no two loads have the same."""
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype="auto")
    torch.manual_seed(seed)
    if new:
        model.resize_token_embeddings(ROWS + NEW)
    return model.eval()


def options(new: bool, kind: str, ways: dict[str, str]) -> dict:
    """What its LoraConfig says, and one linear layer that every row trains."""
    found = {"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", "target_modules": ["q_proj"],
             "ensure_weight_tying": kind == "kept"}
    tokens = [5, 6, 95] + [96, 97] * (new and kind != "old")
    for side, way in ways.items():
        if way == "lora":
            found["target_modules"].append(SIDES[side])
        elif way == "saved":
            found.setdefault("modules_to_save", []).append(SIDES[side])
        elif way == "tokens":
            found.setdefault("trainable_token_indices", {})[SIDES[side]] = tokens
    return found


def logits(model: torch.nn.Module, new: bool) -> torch.Tensor:
    last = [96, 97, 101, 103] if new else [5, 6, 95, 8]
    tokens = torch.tensor([[3, 5, 6, 7, 8, 64, 95, 90], [17, 90, 91, 92, *last]])
    return peft_merge.logits(model, {"input_ids": tokens})


def name(row: tuple) -> str:
    tied, new, kind, embedding, head = row
    return "-".join(["tied" if tied else "untied", *["new"] * new, kind, embedding, head])


@pytest.mark.parametrize("row", TABLE, ids=name)
def test_embeddings(row, tables, nibble, tmp_path):
    tied, new, kind, embedding, head = row
    base, adapter, out = tables / ("tied" if tied else "untied"), tmp_path / "adapter", tmp_path / "out"
    config = peft.LoraConfig(**options(new, kind, {"embedding": embedding, "head": head}))
    with quiet():
        model = peft.get_peft_model(load(base, new, 1), config)
        adapters.fill(model, 5)
        trained = logits(model, new)
        model.save_pretrained(adapter, save_embedding_layers=False if kind == "bare" else "auto")
        loaded = logits(peft.PeftModel.from_pretrained(load(base, new, 2), adapter).eval(), new)
    bound = peft_merge.LOGIT_ERROR[F32]
    if oracle.relative_error(loaded, trained) > bound:
        assert new, "only new rows can be lost"
        result = nibble.run("merge", base, adapter, "-o", out, expect=REJECTED)
        assert "adapter_model.safetensors: tensor '" in result.stderr and not out.exists(), result.stderr
        return
    nibble.json("merge", base, adapter, "-o", out)
    nibble.verify(out)
    merged, information = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(information.values()), information
    assert oracle.relative_error(logits(merged.eval(), new), trained) <= bound
    assert merged.config.vocab_size == ROWS + NEW * new
    same = torch.equal(merged.get_input_embeddings().weight, merged.get_output_embeddings().weight)
    assert merged.config.tie_word_embeddings == (tied and same)


def test_the_table_has_both_ends(tables):
    """Rows that PEFT cannot save, and as many again that it can, or the test above would say nothing."""
    assert len(TABLE) > 100 and len({name(row) for row in TABLE}) == len(TABLE)
