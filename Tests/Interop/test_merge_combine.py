"""`nibble merge` with several adapters: weighted sums, and the combinations that PEFT has."""

import dataclasses
import itertools

import peft
import pytest
import torch

import adapters
import checkpoint
import peft_merge
from adapters import ALL, CONV1D, EXPERTS, QUERY_VALUE, Row, quiet
from architectures import F32
from checkpoint import same
from peft_merge import Reference, merged, reference
from tool import REJECTED, USAGE

pytestmark = pytest.mark.kernels


def create(rows: list[Row], bases, folder) -> list:
    return [row.create(bases[row.base], folder / row.name) for row in rows]


def load_state(row: Row, out) -> dict:
    model, information = row.auto_class.from_pretrained(out, dtype="auto", output_loading_info=True)
    assert not any(information.values()), information
    return model.state_dict()


def weighted(folders, weights) -> list:
    """Of the command line: all adapters, then all weights, in one order."""
    return [*folders, *(f"--weight={weight}" for weight in weights)]


# --- sums -----------------------------------------------------------------------------------------------------------

SUMS = {
    # Of several ranks, over different modules.
    "bf16": (0.7, -0.4, [Row("one", "llama", ALL), Row("two", "llama", QUERY_VALUE | {"r": 4, "use_rslora": True})]),
    "f16": (1.0, 1.0, [Row("one", "qwen3", ALL), Row("two", "qwen3", ALL | {"r": 16})]),
    "f32": (0.25, 3.0, [Row("one", "llama-biases-f32", ALL),
                        Row("two", "llama-biases-f32", ALL | {"lora_bias": True})]),
    "conv1d": (0.5, 0.5, [Row("one", "gpt2", CONV1D), Row("two", "gpt2", CONV1D | {"target_modules": ["c_proj"]})]),
    "experts": (1.5, -1.0, [Row("one", "mixtral", EXPERTS), Row("two", "mixtral", EXPERTS | {"r": 2})]),
    "embedding": (0.5, 0.5, [Row("one", "llama", {"target_modules": ["embed_tokens", "q_proj"]}),
                             Row("two", "llama", {"target_modules": ["embed_tokens", "lm_head"]})]),
    "replaced": (0.5, 2.0, [Row("one", "llama", ALL),
                            Row("two", "llama", QUERY_VALUE | {"modules_to_save": ["norm"]})]),
}


def total(references: list[Reference], weights: list[float]) -> Reference:
    """The exact sum of the exact updates; what no adapter computes is the last one's, who replaces it."""
    base = {name: tensor for each in references for name, tensor in each.base.items()}
    state, exact, terms = dict(references[-1].state), dict(references[-1].exact), {}
    for name, before in base.items():
        values, pairs = before.double(), list(zip(references, weights))
        exact[name] = values + sum(weight * (each.exact[name] - values) for each, weight in pairs)
        state[name] = exact[name].to(before.dtype)
        if before.dtype == F32:
            # A bias has no product: each adapter's update is a term, and weights of two signs may leave less than any.
            terms[name] = sum(abs(weight) * each.terms.get(name, (each.exact[name] - values).abs())
                              for each, weight in pairs)
    return dataclasses.replace(references[-1], state=state, base=base, exact=exact, terms=terms, updates={})


@pytest.mark.parametrize("case", SUMS)
def test_sum(case, bases, nibble, tmp_path):
    """Every update scaled, added up in float32, and rounded once, whatever the order."""
    *weights, rows = SUMS[case]
    base, folders = bases[rows[0].base], create(rows, bases, tmp_path)
    references = [reference(row, base, folder, exact=True) for row, folder in zip(rows, folders)]
    report = nibble.json("merge", base, *weighted(folders, weights), "-o", tmp_path / "out")
    nibble.verify(tmp_path / "out")
    expected = total(references, weights)
    state = load_state(rows[0], tmp_path / "out")
    peft_merge.check_tensors(state, expected)
    both = references[0].scales.keys() & references[1].scales.keys()
    for name in both & checkpoint.tensors(tmp_path / "out").keys():
        assert len({change["adapter"] for change in report["changes"] if change["tensor"] == name}) == 2, name

    nibble.json("merge", base, *weighted(folders[::-1], weights[::-1]), "-o", tmp_path / "reversed", "--combine", "sum")
    for name, tensor in load_state(rows[0], tmp_path / "reversed").items():
        assert same(tensor, state[name]), name


def test_three_in_any_order(bases, nibble, tmp_path):
    """A sum of two is the same both ways; of three it is not, unless their order is settled."""
    rows = [Row(name, "llama-biases-f32", ALL | {"lora_bias": name != "two"}) for name in ("one", "two", "three")]
    weights, base, folders = [0.25, 3.0, -0.7], bases["llama-biases-f32"], create(rows, bases, tmp_path)
    outputs = []
    for number, order in enumerate(itertools.permutations(range(3))):
        words = weighted([folders[at] for at in order], [weights[at] for at in order])
        nibble.json("merge", base, *words, "-o", tmp_path / str(number))
        outputs.append(checkpoint.tensors(tmp_path / str(number)))
    for other in outputs[1:]:
        assert all(same(other[name], tensor) for name, tensor in outputs[0].items())
    references = [reference(row, base, folder, exact=True) for row, folder in zip(rows, folders)]
    peft_merge.check_tensors(load_state(rows[0], tmp_path / "0"), total(references, weights))


def test_weights_default_to_one(bases, nibble, tmp_path):
    rows = SUMS["bf16"][-1]
    base, folders = bases["llama"], create(rows, bases, tmp_path)
    nibble.json("merge", base, *folders, "-o", tmp_path / "default")
    nibble.json("merge", base, *weighted(folders, [1, 1]), "-o", tmp_path / "ones")
    mine, expected = checkpoint.tensors(tmp_path / "default"), checkpoint.tensors(tmp_path / "ones")
    assert mine.keys() == expected.keys() and all(same(mine[name], expected[name]) for name in expected)


@pytest.mark.parametrize("weight", [0.3, -2.0])
def test_weight_of_one_adapter(weight, bases, nibble, tmp_path):
    row = adapters.row("plain-bf16")
    base = bases[row.base]
    [adapter] = create([row], bases, tmp_path)
    nibble.json("merge", base, adapter, f"--weight={weight}", "-o", tmp_path / "out")
    expected = total([reference(row, base, adapter, exact=True)], [weight])
    peft_merge.check_tensors(load_state(row, tmp_path / "out"), expected)


def test_as_many_weights_as_adapters(bases, nibble, tmp_path):
    base, folders = bases["llama"], create(SUMS["bf16"][-1], bases, tmp_path)
    nibble.run("merge", base, *folders, "--weight", "1", "-o", tmp_path / "out", expect=USAGE)


# --- combinations ---------------------------------------------------------------------------------------------------


def combined(row: Row, base, folders: list, weights: list[float], kind: str, density: float | None) -> Reference:
    """PEFT's own combination of adapters, then its merge."""
    model = row.load_base(base)
    names = [f"adapter{number}" for number in range(len(folders))]
    with quiet():
        model = peft.PeftModel.from_pretrained(model, folders[0], adapter_name=names[0])
        for folder, name in zip(folders[1:], names[1:]):
            model.load_adapter(folder, adapter_name=name)
        model.add_weighted_adapter(names, weights, "combined", combination_type=kind, density=density)
        model.set_adapter("combined")
    return merged(row, model)


PAIRS = {
    "bf16": [Row("one", "llama", ALL), Row("two", "llama", ALL | {"lora_alpha": 4})],
    "f16": [Row("one", "qwen3", ALL | {"r": 16}), Row("two", "qwen3", QUERY_VALUE | {"r": 16})],
    "f32": [Row("one", "llama-biases-f32", ALL), Row("two", "llama-biases-f32", QUERY_VALUE)],
    "conv1d": [Row("one", "gpt2", CONV1D), Row("two", "gpt2", CONV1D)],
    "embedding": [Row(name, "llama", {"target_modules": ["embed_tokens", "q_proj"]}) for name in ("one", "two")],
}
DETERMINISTIC = [
    ("ties", 0.2, [1.0, 0.6]), ("ties", 0.5, [0.9, -0.5]), ("ties", 1.0, [1.0, 1.0]),
    ("magnitude_prune", 0.3, [1.0, 0.6]), ("magnitude_prune", 0.7, [-0.8, 0.4]),
]


@pytest.mark.parametrize("kind, density, weights", DETERMINISTIC, ids=str)
@pytest.mark.parametrize("pair", PAIRS)
def test_as_peft_combines(pair, kind, density, weights, bases, nibble, tmp_path):
    """PEFT prunes and elects on A and on B, each weighted by the root of weight times scale; see its code."""
    rows = PAIRS[pair]
    base, folders = bases[rows[0].base], create(rows, bases, tmp_path)
    expected = combined(rows[0], base, folders, weights, kind, density)
    nibble.json("merge", base, *weighted(folders, weights), "-o", tmp_path / "out",
                "--combine", kind, "--density", density)
    nibble.verify(tmp_path / "out")
    peft_merge.check_tensors(load_state(rows[0], tmp_path / "out"), expected)


def test_three_adapters(bases, nibble, tmp_path):
    """Three votes on a sign, the weakest of them split."""
    rows = [Row(name, "llama", QUERY_VALUE) for name in ("one", "two", "three")]
    base, folders, weights = bases["llama"], create(rows, bases, tmp_path), [1.0, 0.5, 0.25]
    expected = combined(rows[0], base, folders, weights, "ties", 0.4)
    nibble.json("merge", base, *weighted(folders, weights), "-o", tmp_path / "out",
                "--combine", "ties", "--density", "0.4")
    peft_merge.check_tensors(load_state(rows[0], tmp_path / "out"), expected)


@pytest.mark.parametrize("kind, like", [("dare_linear", "linear"), ("dare_ties", "ties")])
def test_dare_of_everything_drops_nothing(kind, like, bases, nibble, tmp_path):
    rows, weights = PAIRS["bf16"], [0.8, 0.5]
    base, folders = bases["llama"], create(rows, bases, tmp_path)
    expected = combined(rows[0], base, folders, weights, like, 1.0)
    nibble.json("merge", base, *weighted(folders, weights), "-o", tmp_path / "out",
                "--combine", kind, "--density", "1.0")
    peft_merge.check_tensors(load_state(rows[0], tmp_path / "out"), expected)


@pytest.mark.parametrize("kind", ["dare_linear", "dare_ties"])
def test_dare(kind, bases, nibble, tmp_path):
    """Of rank 1 and over disjoint modules, an update shows which elements of A and of B were kept, and how scaled.

    PEFT draws with torch's generator, which nothing else reproduces; so only the law of the draw is compared.
    """
    density = 0.4
    rows = [Row("one", "llama-biases-f32", QUERY_VALUE | {"r": 1, "lora_alpha": 2}),
            Row("two", "llama-biases-f32", {"target_modules": ["up_proj", "down_proj"], "r": 1, "lora_alpha": 2})]
    base, folders = bases["llama-biases-f32"], create(rows, bases, tmp_path)
    references = [reference(row, base, folder) for row, folder in zip(rows, folders)]

    def merge(name: str, *options) -> dict:
        nibble.json("merge", base, *weighted(folders, [1.0, 0.5]), "-o", tmp_path / name,
                    "--combine", kind, "--density", density, *options)
        return checkpoint.tensors(tmp_path / name)

    first, again = merge("first", "--seed", 7), merge("again", "--seed", 7, "--jobs", 1)
    other = merge("other", "--seed", 8)
    assert all(same(again[name], tensor) for name, tensor in first.items())
    original, kept, all_of_them = checkpoint.tensors(base), 0, 0
    for weight, expected in zip([1.0, 0.5], references):
        for name, before in expected.base.items():
            assert not same(first[name], other[name]), name
            changed = first[name] != before
            lines = [changed.any(dim=1), changed.any(dim=0)]
            kept += sum(int(line.sum()) for line in lines)
            all_of_them += sum(len(line) for line in lines)
            block = lines[0][:, None] & lines[1][None, :]
            update = (expected.exact[name] - before.double()) * weight / density**2 * block
            unit = peft_merge.unit(torch.maximum(before.double().abs(), update.abs()), F32)
            # Each rounded to 24 bits: twice the density, the division by it, the root, the product with it; B·A; then the sum.
            bound = 9 * 2**-24 * update.abs() + unit
            assert ((first[name].double() - before.double() - update).abs() <= bound).all(), name
    untouched = original.keys() - {name for expected in references for name in expected.base}
    assert all(same(first[name], original[name]) for name in untouched)
    # 1664 independent draws: five standard deviations.
    assert abs(kept / all_of_them - density) < 5 * (density * (1 - density) / all_of_them) ** 0.5


@pytest.mark.parametrize("kind", ["ties", "magnitude_prune", "dare_linear", "dare_ties"])
def test_one_adapter_cannot_be_combined(kind, bases, nibble, tmp_path):
    """PEFT then does something else than it was asked for, a weighted sum, without a word."""
    folders = create(PAIRS["bf16"][:1], bases, tmp_path)
    nibble.run("merge", bases["llama"], *folders, "-o", tmp_path / "out", "--combine", kind, expect=USAGE)


def test_dare_has_a_seed_of_its_own(bases, nibble, tmp_path):
    """Without --seed the result is the same each time, too."""
    base, folders = bases["llama"], create(PAIRS["bf16"], bases, tmp_path)
    for name in ("first", "again"):
        nibble.json("merge", base, *folders, "-o", tmp_path / name, "--combine", "dare_ties", "--density", "0.5")
    first, again = checkpoint.tensors(tmp_path / "first"), checkpoint.tensors(tmp_path / "again")
    assert all(same(again[name], tensor) for name, tensor in first.items())


@pytest.mark.parametrize("kind", ["ties", "dare_linear", "dare_ties", "magnitude_prune"])
def test_other_ranks_do_not_combine(kind, bases, nibble, tmp_path):
    """PEFT adds factors, not updates, and refuses those of different rank."""
    rows = [Row("one", "llama", QUERY_VALUE), Row("two", "llama", QUERY_VALUE | {"r": 4})]
    base, folders = bases["llama"], create(rows, bases, tmp_path)
    with pytest.raises(ValueError, match="same r"):
        combined(rows[0], base, folders, [1.0, 1.0], kind, 0.5)
    result = nibble.run("merge", base, *folders, "-o", tmp_path / "out", "--combine", kind, "--density", "0.5",
                        expect=REJECTED)
    assert "rank" in result.stderr
    assert not (tmp_path / "out").exists()
