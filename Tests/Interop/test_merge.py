"""`nibble merge` with one adapter, against PEFT's own merge: element by element, then as a model."""

import json
import shutil

import peft
import pytest
import torch
from peft.tuners.lora.variants import QALoraLinearVariant
from safetensors.torch import load_file, save_file

import adapters
import checkpoint
import oracle
import peft_merge
from adapters import CONFIG, PREFIX, ROWS, WEIGHTS, Row, quiet, row
from architectures import BF16, F16, F32, case
from checkpoint import same
from peft_merge import Reference, reference
from tool import REJECTED

pytestmark = pytest.mark.kernels


def load(row: Row, out) -> torch.nn.Module:
    """As a user loads it; nothing may be missing, left over, or of another shape."""
    model, information = row.auto_class.from_pretrained(out, dtype="auto", output_loading_info=True)
    if row.new_class:
        information["unexpected_keys"] -= {"lm_head.weight"}
    assert not any(information.values()), information
    return model.eval()


def check_logits(model, expected: Reference) -> None:
    result = peft_merge.logits(model, expected.inputs)
    for theirs in (expected.unmerged_logits, expected.logits):
        assert torch.isfinite(theirs).all()
        assert oracle.relative_error(result, theirs) <= peft_merge.LOGIT_ERROR[model.dtype]


def check_config(row: Row, out, base) -> None:
    """config.json is the base's but for what the adapter changes."""
    expected = checkpoint.config(base)
    if row.vocabulary:
        expected["vocab_size"] += row.vocabulary
    if row.unties:
        expected["tie_word_embeddings"] = False
    if ranges := row.options.get("layer_replication"):
        expected["num_hidden_layers"] = sum(end - start for start, end in ranges)
    mine = checkpoint.config(out)
    if row.new_class:
        del mine["architectures"], expected["architectures"]
    assert mine == expected


def check_report(report: dict, expected: Reference, row: Row, out, base) -> None:
    """What the report says of itself, and its list of changes: complete, with the right scales and sizes."""
    before, after = checkpoint.tensors(base), checkpoint.tensors(out)
    assert report["output"] == str(out)
    assert report["tensors"] == len(after)
    assert report["parameters"] == sum(tensor.numel() for tensor in after.values())
    assert {path.name for path in out.glob("*.safetensors")} <= set(report["files"])
    changes = report["changes"]
    listed = {change["tensor"] for change in changes}
    assert listed <= set(after)
    if "layer_replication" not in row.options:
        changed = {name for name in before.keys() & after.keys() if not same(before[name], after[name])}
        assert changed <= listed, changed - listed
    scales = [change for change in changes if change["scale"] is not None]
    for change in scales:
        name = change["tensor"]
        known = [expected.scales[name]] if name in expected.scales else expected.scales.values()
        assert any(change["scale"] == pytest.approx(scale, rel=1e-6) for scale in known), change
        if name in before and before[name].shape == after[name].shape and "layer_replication" not in row.options:
            size = oracle.relative_error(after[name], before[name])
            assert change["relativeChange"] == pytest.approx(size, rel=0.01), change
    direct = expected.scales.keys() & after.keys()
    assert direct <= {change["tensor"] for change in scales}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_merge(row, bases, nibble, tmp_path):
    base, out = bases[row.base], tmp_path / "out"
    adapter = row.create(base, tmp_path / "adapter")
    expected = reference(row, base, adapter)
    assert expected.scales and not any(same(expected.state[name], expected.base[name]) for name in expected.scales)
    report = nibble.json("merge", base, row.respelled(adapter, tmp_path / "respelled"), "-o", out)
    nibble.verify(out)
    model = load(row, out)
    peft_merge.check_tensors(model.state_dict(), expected)
    check_logits(model, expected)
    check_config(row, out, base)
    check_report(report, expected, row, out, base)


# --- roundings and dtypes -------------------------------------------------------------------------------------------

ROUNDED = ["plain-bf16", "plain-f16", "conv1d", "dora", "embedding", "experts-and-attention", "lora-bias-bf16",
           "block-diagonal", "mica"]


@pytest.mark.parametrize("name", ROUNDED)
def test_rounding_of_safe_merge(name, bases, nibble, tmp_path):
    """PEFT's `safe_merge=True` rounds the update to the weight's dtype, then the sum."""
    base, out = bases[row(name).base], tmp_path / "out"
    adapter = row(name).create(base, tmp_path / "adapter")
    nibble.json("merge", base, adapter, "-o", out, "--rounding", "peft-safe")
    peft_merge.check_tensors(load(row(name), out).state_dict(), reference(row(name), base, adapter, safe=True))


@pytest.mark.parametrize("name", ROUNDED)
def test_rounding_once(name, bases, nibble, tmp_path):
    """Whatever PEFT rounds in between, here only the result is rounded: the nearest number to the exact one."""
    base, out = bases[row(name).base], tmp_path / "out"
    adapter = row(name).create(base, tmp_path / "adapter")
    expected = reference(row(name), base, adapter, exact=True)
    nibble.json("merge", base, adapter, "-o", out, "--rounding", "once")
    rounded = {key: expected.exact[key].to(tensor.dtype) for key, tensor in expected.state.items()}
    peft_merge.check_tensors(load(row(name), out).state_dict(), expected, rounded)


def test_roundings_differ(bases, nibble, tmp_path):
    """What PEFT rounds twice is told apart from what is rounded once, or the two tests above would say nothing."""
    base = bases["mixtral"]
    adapter = row("experts-and-attention").create(base, tmp_path / "adapter")
    states = {}
    for rounding in ("peft", "peft-safe", "once"):
        nibble.json("merge", base, adapter, "-o", tmp_path / rounding, "--rounding", rounding)
        states[rounding] = load(row("experts-and-attention"), tmp_path / rounding).state_dict()
    nibble.json("merge", base, adapter, "-o", tmp_path / "default")
    default = load(row("experts-and-attention"), tmp_path / "default").state_dict()
    assert all(same(default[name], tensor) for name, tensor in states["peft"].items())
    experts, query = "model.layers.0.mlp.experts.down_proj", "model.layers.0.self_attn.q_proj.weight"
    assert same(states["peft"][experts], states["peft-safe"][experts])
    assert same(states["peft"][query], states["once"][query])
    assert not same(states["peft"][experts], states["once"][experts])
    assert not same(states["peft"][query], states["peft-safe"][query])


@pytest.mark.parametrize("name", ["plain-bf16", "plain-f16", "conv1d", "dora", "embedding-tied", "experts",
                                  "save-head", "tokens", "resized-tied"])
def test_float32(name, bases, nibble, tmp_path):
    """The base widened before it is merged: nothing is rounded to 16 bits, neither the changed nor the unchanged."""
    base, out = bases[row(name).base], tmp_path / "out"
    adapter = row(name).create(base, tmp_path / "adapter")
    expected = reference(row(name), base, adapter, dtype=F32)
    nibble.json("merge", base, adapter, "-o", out, "--dtype", "float32")
    nibble.verify(out)
    model = load(row(name), out)
    assert model.dtype == F32 and checkpoint.config(out)["dtype"] == "float32"
    peft_merge.check_tensors(model.state_dict(), expected)
    check_logits(model, expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrower_dtype(dtype, bases, nibble, tmp_path):
    """From float32 to 16 bits: merged in float32, then rounded once."""
    base, out = bases["llama-biases-f32"], tmp_path / "out"
    adapter = row("plain-f32").create(base, tmp_path / "adapter")
    expected = reference(row("plain-f32"), base, adapter)
    nibble.json("merge", base, adapter, "-o", out, "--dtype", dtype)
    nibble.verify(out)
    narrow = {key: tensor.to(getattr(torch, dtype)) for key, tensor in expected.exact.items()}
    expected.state = {key: tensor.to(getattr(torch, dtype)) for key, tensor in expected.state.items()}
    peft_merge.check_tensors(load(row("plain-f32"), out).state_dict(), expected, narrow)
    assert checkpoint.config(out)["dtype"] == dtype


def test_float16_overflow_names_the_tensor(bases, nibble, tmp_path):
    adapter = row("plain-f16").create(bases["qwen3"], tmp_path / "adapter")
    tensors = load_file(adapter / WEIGHTS)
    tensors[f"{PREFIX}model.layers.1.mlp.up_proj.lora_B.weight"][7] *= 1e7
    save_file(tensors, adapter / WEIGHTS)
    result = nibble.run("merge", bases["qwen3"], adapter, "-o", tmp_path / "out", expect=REJECTED)
    assert "model.layers.1.mlp.up_proj.weight" in result.stderr
    assert not (tmp_path / "out").exists()


# --- what PEFT cannot merge, or cannot be asked ---------------------------------------------------------------------


def test_qalora(bases, nibble, tmp_path):
    """PEFT has no merge for QA-LoRA, only a forward pass: what it adds for each unit vector is the update."""
    base, out, group = bases["llama"], tmp_path / "out", 8
    qalora = row("qalora-flag-only")
    adapter = qalora.create(base, tmp_path / "adapter")
    tensors = {
        key: tensor[:, : tensor.shape[1] // group].contiguous() if "lora_A" in key else tensor
        for key, tensor in load_file(adapter / WEIGHTS).items()
    }
    save_file(tensors, adapter / WEIGHTS)
    with quiet():
        model = peft.get_peft_model(qalora.load_base(base), peft.LoraConfig.from_pretrained(adapter))
    expected = reference(qalora, base, qalora.create(base, tmp_path / "plain"))
    for name, module in peft_merge.lora_modules(model).items():
        key = PREFIX + name.removesuffix(".weight")
        module.lora_A["default"].weight = torch.nn.Parameter(tensors[f"{key}.lora_A.weight"])
        module.lora_B["default"].weight = torch.nn.Parameter(tensors[f"{key}.lora_B.weight"])
        module.qalora_group_size = {"default": group}
        identity, nothing = torch.eye(module.in_features), torch.zeros(module.in_features, module.out_features)
        with torch.no_grad():
            update = QALoraLinearVariant.forward(module, "default", identity, nothing).T
        expected.state[name] = (expected.base[name].float() + update).to(BF16)
    nibble.json("merge", base, adapter, "-o", out)
    peft_merge.check_tensors(load(qalora, out).state_dict(), expected)


def test_expert_layout_of_unsloth(bases, nibble, tmp_path):
    """Unsloth packed B with the expert slowest, PEFT with the expert fastest; nothing in the file says which."""
    base = bases["mixtral"]
    adapter = row("experts").create(base, tmp_path / "adapter")
    packed = tmp_path / "packed"
    shutil.copytree(adapter, packed)
    tensors = load_file(adapter / WEIGHTS)
    for key in [key for key in tensors if "lora_B" in key]:
        rows, columns = tensors[key].shape
        tensors[key] = tensors[key].reshape(rows, columns // 4, 4).transpose(1, 2).reshape(rows, columns).contiguous()
    save_file(tensors, packed / WEIGHTS)
    nibble.json("merge", base, adapter, "-o", tmp_path / "peft")
    nibble.json("merge", base, packed, "-o", tmp_path / "unsloth", "--expert-layout", "unsloth-old")
    nibble.json("merge", base, packed, "-o", tmp_path / "mistaken", "--expert-layout", "peft")
    expected, mine = checkpoint.tensors(tmp_path / "peft"), checkpoint.tensors(tmp_path / "unsloth")
    assert expected.keys() == mine.keys() and all(same(mine[name], expected[name]) for name in expected)
    mistaken = checkpoint.tensors(tmp_path / "mistaken")
    assert sum(not same(mistaken[name], expected[name]) for name in expected) == 2 * 4 * 3


# --- the checkpoint as a whole --------------------------------------------------------------------------------------


def test_shards(bases, nibble, tmp_path):
    """From several files to several others, and to one; `total_size` counts bytes, not tensors."""
    base, sharded = bases["qwen2"], tmp_path / "sharded"
    tied = row("embedding-tied")
    adapter = tied.create(base, tmp_path / "adapter")
    tied.load_base(base).save_pretrained(sharded, max_shard_size="40KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    nibble.json("merge", base, adapter, "-o", tmp_path / "whole")
    nibble.json("merge", sharded, adapter, "-o", tmp_path / "joined")
    report = nibble.json("merge", sharded, adapter, "-o", tmp_path / "out", "--max-shard-size", "50KB")
    nibble.verify(tmp_path / "out")
    expected = checkpoint.tensors(tmp_path / "whole")
    for folder in (tmp_path / "joined", tmp_path / "out"):
        mine = checkpoint.tensors(folder)
        assert mine.keys() == expected.keys() and all(same(mine[name], expected[name]) for name in expected)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    size = sum(tensor.numel() * tensor.element_size() for tensor in expected.values())
    assert index["metadata"]["total_size"] == size
    assert "lm_head.weight" in index["weight_map"]
    assert set(index["weight_map"].values()) <= set(report["files"])
    load(tied, tmp_path / "out")


def test_files_of_the_adapter_win(bases, nibble, tmp_path):
    """Training saves the tokenizer it used, new tokens and chat template included, beside the adapter."""
    base = tmp_path / "base"
    shutil.copytree(bases["llama"], base)
    adapter = row("gaussian").create(base, tmp_path / "adapter")
    theirs = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
              "generation_config.json"]
    for name in theirs:
        (base / name).write_text(json.dumps({"from": "base"}))
        (adapter / name).write_text(json.dumps({"from": "adapter"}))
    (base / "merges.txt").write_text("only the base has it")
    (base / "README.md").write_text("of the base")
    (adapter / "training_args.bin").write_bytes(b"not for a model")
    report = nibble.json("merge", base, adapter, "-o", tmp_path / "out")
    nibble.verify(tmp_path / "out")
    for name in theirs:
        assert json.loads((tmp_path / "out" / name).read_text()) == {"from": "adapter"}, name
        assert any(name in warning for warning in report["warnings"]), (name, report["warnings"])
    assert (tmp_path / "out" / "merges.txt").read_text() == "only the base has it"
    assert (tmp_path / "out" / "README.md").read_text() == "of the base"
    assert not {CONFIG, WEIGHTS, "training_args.bin"} & {path.name for path in (tmp_path / "out").iterdir()}


def test_quiet_when_the_adapter_brings_nothing(bases, nibble, tmp_path):
    adapter = row("gaussian").create(bases["llama"], tmp_path / "adapter")
    report = nibble.json("merge", bases["llama"], adapter, "-o", tmp_path / "out")
    assert report["warnings"] == []


def test_jobs_do_not_matter(bases, nibble, tmp_path):
    adapter = row("dora").create(bases["llama"], tmp_path / "adapter")
    files = []
    for jobs in (1, 2, 5):
        nibble.json("merge", bases["llama"], adapter, "-o", tmp_path / str(jobs), "--jobs", jobs)
        files.append({path.name: path.read_bytes() for path in (tmp_path / str(jobs)).iterdir()})
    assert files[0] == files[1] == files[2]


def test_dry_run_writes_nothing(bases, nibble, tmp_path):
    adapter = row("resized-targeted").create(bases["llama"], tmp_path / "adapter")
    plan = nibble.json("merge", bases["llama"], adapter, "-o", tmp_path / "out", "--dry-run")
    assert not (tmp_path / "out").exists()
    report = nibble.json("merge", bases["llama"], adapter, "-o", tmp_path / "out")
    assert plan["seconds"] == 0
    fields = ("files", "tensors", "parameters", "bytesIn", "bytesOut", "warnings")
    assert {key: plan[key] for key in fields} == {key: report[key] for key in fields}


# --- the oracle itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain-bf16", "plain-f16", "plain-f32", "dora-f32", "lora-bias", "experts-down"])
def test_oracle_accepts_peft_and_nothing_else(name, bases, tmp_path):
    """PEFT's own merge passes; one element two units off does not, nor many that are one unit off."""
    base = bases[row(name).base]
    expected = reference(row(name), base, row(name).create(base, tmp_path / "adapter"))
    peft_merge.check_tensors(expected.state, expected)
    changed, kept = sorted(expected.scales)[0], "model.norm.weight"

    def tampered(key, change):
        tensor = expected.state[key].clone()
        return expected.state | {key: change(tensor.flatten()).reshape(tensor.shape)}

    def far(values):
        operand = peft_merge.largest_operand(changed, expected.state[changed], expected).flatten()[:1]
        values[0] += (peft_merge.unit(operand, values.dtype) * peft_merge.UNITS[values.dtype] * 2)[0].to(values.dtype)
        return values

    def nudged(values):
        integers = values.view(torch.int32 if values.dtype == F32 else torch.int16)
        integers[: len(values) // 2] += 1
        return values

    def negated(values):
        values[5] = -values[5]
        return values

    wrong = [(changed, far), (changed, negated), (kept, nudged), (kept, negated)]
    if expected.state[changed].dtype != F32:
        wrong.append((changed, nudged))
    for key, change in wrong:
        with pytest.raises(AssertionError):
            peft_merge.check_tensors(tampered(key, change), expected)
    with pytest.raises(AssertionError):
        peft_merge.check_tensors({key: tensor for key, tensor in expected.state.items() if key != kept}, expected)
    if row(name).case.dtype == F16:
        with pytest.raises(AssertionError):
            peft_merge.check_tensors(expected.state | {changed: expected.state[changed].float()}, expected)


def test_oracle_of_what_is_rounded_twice():
    """An update of 248.5 units may round to 248 or to 249; on a base of 95.5 units that makes 152 or 154, and never 153."""
    base, update = torch.tensor([95.5], dtype=BF16), torch.tensor([-248.0], dtype=BF16)
    expected = Reference(state={"weight": base + update}, base={"weight": base}, exact={}, terms={},
                         updates={"weight": update}, scales={}, inputs={}, unmerged_logits=base, logits=base)
    for result in (-152.0, -154.0):
        peft_merge.check_rounded_twice("weight", torch.tensor([result], dtype=BF16), expected)
    for result in (-150.0, -151.0, -153.0, -155.0, -156.0, 152.0):
        with pytest.raises(AssertionError):
            peft_merge.check_rounded_twice("weight", torch.tensor([result], dtype=BF16), expected)


@pytest.mark.parametrize("name, targets, dora", [
    ("whisper", ["conv1", "conv2", "q_proj"], False), ("whisper", ["conv1"], True), ("llava", "all-linear", False),
    ("llava", ["patch_embedding", "linear_1"], False), ("gemma3", "all-linear", False),
    ("deepseek-v3", "all-linear", False), ("qwen2-vl", ["qkv", "proj", "q_proj"], False),
], ids=str)
def test_other_architectures(name, targets, dora, nibble, tmp_path):
    """Convolutions, towers and renamed modules: classes that no auto class of the table loads."""
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    made = case(name)
    made.create().save_pretrained(base)
    options = peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, use_dora=dora)
    with quiet():
        model = peft.get_peft_model(made.model_class.from_pretrained(base, dtype="auto"), options)
        torch.manual_seed(9)
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.02)
        model.save_pretrained(adapter)
        plain = made.model_class.from_pretrained(base, dtype="auto")
        theirs = peft.PeftModel.from_pretrained(plain, adapter).merge_and_unload().state_dict()
    nibble.json("merge", base, adapter, "-o", out)
    nibble.verify(out)
    loaded, information = made.model_class.from_pretrained(out, dtype="auto", output_loading_info=True)
    assert not any(information.values()), information
    mine = loaded.state_dict()
    assert set(mine) == set(theirs)
    different = sum(int((mine[key] != theirs[key]).sum()) for key in theirs)
    assert different <= sum(tensor.numel() for tensor in theirs.values()) / 1000


def test_replicated_layers_keep_their_types(bases, nibble, tmp_path):
    """Where a configuration lists the type of each layer, PEFT's own replicated model cannot run; the merged one can."""
    replicated = Row("replicated-typed", "qwen3", adapters.QUERY_VALUE | {"layer_replication": [[0, 1], [0, 2]]})
    nibble.json("merge", bases["qwen3"], replicated.create(bases["qwen3"], tmp_path / "adapter"), "-o", tmp_path / "out")
    mine, types = checkpoint.config(tmp_path / "out"), checkpoint.config(bases["qwen3"])["layer_types"]
    assert mine["num_hidden_layers"] == 3 and mine["layer_types"] == [types[0], types[0], types[1]]
    model = load(replicated, tmp_path / "out")
    assert torch.isfinite(peft_merge.logits(model, replicated.case.example(model.config, model.dtype))).all()


def test_unit():
    for dtype in (BF16, F16, F32):
        integer = torch.int32 if dtype == F32 else torch.int16
        values = torch.cat([torch.tensor([0.0, 1.0, 1.5, 0.99, 3.14, 1e-3, 60000.0]), torch.logspace(-50, 4, 99)])
        values = values.to(dtype)
        following = (values.view(integer) + 1).view(dtype)
        assert torch.equal(peft_merge.unit(values, dtype), following.double() - values.double())


def test_enough_adapters():
    assert len(ROWS) >= 24 and len({row.name for row in ROWS}) == len(ROWS)
