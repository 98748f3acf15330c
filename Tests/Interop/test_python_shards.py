"""What a rank holds after `nibble.load` with a mesh, of many architectures. One rank is enough to see that."""

import datetime

import pytest
import torch
import torch.distributed as dist
import transformers
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from transformers import LlamaForCausalLM

import architectures
import nibble as package
import oracle

# Tied and untied, biases, Conv1D, layers of another name, an encoder, all three float types.
WHOLE = ["llama-tied-f16", "llama-biases-f32", "llama-odd", "qwen2", "gemma", "phi", "gpt2", "opt", "bloom", "t5"]
CASES = [(name, "uint8") for name in WHOLE] + [
    (name, "bfloat16") for name in WHOLE if architectures.case(name).dtype == torch.bfloat16
]
ADAPTER = {"r": 4, "target_modules": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def mesh():
    store = dist.HashStore()
    dist.init_process_group("gloo", store=store, rank=0, world_size=1, timeout=datetime.timedelta(seconds=60))
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def quantized(name: str, nibble, folder, *options):
    case = architectures.case(name)
    case.create().save_pretrained(folder / "source")
    nibble.quantize(folder / "source", folder / "out", *options)
    return case, folder / "out"


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def check(mine, theirs) -> None:
    """Every parameter, buffer and quantization statistic against the model that is not sharded."""
    expected = dict(theirs.named_parameters(remove_duplicate=False))
    found = dict(mine.named_parameters(remove_duplicate=False))
    assert found.keys() == expected.keys()
    for name, parameter in found.items():
        assert isinstance(parameter, DTensor), name
        assert parameter.requires_grad == expected[name].requires_grad, name
        assert oracle.same(whole(parameter.data), expected[name].data), name
    buffers = dict(theirs.named_buffers())
    for name, buffer in mine.named_buffers():
        assert oracle.same(buffer, buffers.pop(name)), name
    assert not buffers
    for name, module in mine.named_modules():
        if isinstance(module, Linear4bit):
            state, other = module.quant_state, theirs.get_submodule(name).weight.quant_state
            parts, expected_parts = state.as_dict(packed=True), other.as_dict(packed=True)
            assert parts.keys() == expected_parts.keys()
            assert all(oracle.same(part, expected_parts[key]) for key, part in parts.items()), name


@pytest.mark.parametrize("name, storage", CASES)
def test_architecture(name, storage, nibble, tmp_path, mesh):
    case, out = quantized(name, nibble, tmp_path, "--quant-storage", storage)
    mine = package.load(out, mesh=mesh, verify=True)
    theirs = case.model_class.from_pretrained(out)
    check(mine, theirs)
    if case.run:
        for module in theirs.modules():
            if isinstance(module, Linear4bit):
                # The repacked form, which the loader rules out where weights are gathered, rounds otherwise.
                module.support_avx512bf16_for_cpu = False
        example = case.example(theirs.config, theirs.dtype)
        with torch.no_grad():
            assert torch.equal(mine(**example).logits, theirs(**example).logits)


def test_single_quantization_and_16_bits(nibble, tmp_path, mesh):
    _, out = quantized("llama", nibble, tmp_path, "--no-double-quant")
    check(package.load(out, mesh=mesh), LlamaForCausalLM.from_pretrained(out))
    nibble.run("convert", tmp_path / "source", "-o", tmp_path / "copy")
    check(package.load(tmp_path / "copy", mesh=mesh), LlamaForCausalLM.from_pretrained(tmp_path / "copy"))


def test_tensors_that_are_cast(nibble, tmp_path, mesh):
    """Biases beside weights that are packed into bfloat16, in a float16 model, become bfloat16 as they are loaded."""
    case, out = quantized("phi", nibble, tmp_path, "--quant-storage", "bfloat16")
    model = package.load(out, mesh=mesh, peft_config=LoraConfig(**ADAPTER))
    theirs = case.model_class.from_pretrained(out)
    with package.open(out) as checkpoint:
        assert any(theirs.get_parameter(name).dtype != checkpoint[name].torch().dtype for name in checkpoint
                   if name.endswith("proj.bias"))
    for name, parameter in model.get_base_model().named_parameters():
        if "lora_" not in name:
            expected = theirs.get_parameter(name.replace(".base_layer", ""))
            assert oracle.same(whole(parameter.data), expected.data), name


def test_modules_to_save(nibble, tmp_path, mesh):
    """Trainable copies begin as what they are copies of, and are sharded like it."""
    _, out = quantized("llama", nibble, tmp_path)
    model = package.load(out, mesh=mesh, peft_config=LoraConfig(**ADAPTER, modules_to_save=["lm_head"]))
    (copy,) = [value for name, value in model.named_parameters() if "modules_to_save" in name]
    assert isinstance(copy, DTensor) and copy.requires_grad
    with package.open(out) as checkpoint:
        assert torch.equal(whole(copy.data), checkpoint["lm_head.weight"].torch())


HEAD_CLASSES = [transformers.AutoModelForSequenceClassification, transformers.AutoModelForTokenClassification]


@pytest.mark.parametrize("model_class", HEAD_CLASSES)
def test_a_new_head(model_class, nibble, tmp_path, mesh):
    """Random values, which are those of a model that is not sharded; the rest is the checkpoint's."""
    _, out = quantized("llama", nibble, tmp_path)
    models = []
    for options in ({"mesh": mesh}, {"device": "cpu"}):
        torch.manual_seed(3)
        models.append(package.load(out, model_class=model_class, num_labels=5, **options))
    check(*models)
    assert whole(models[0].score.weight.data).any() and models[0].score.weight.shape[0] == 5


def test_a_new_head_that_is_trained(nibble, tmp_path, mesh):
    _, out = quantized("llama", nibble, tmp_path)
    model = package.load(
        out, mesh=mesh, model_class=HEAD_CLASSES[0], peft_config=LoraConfig(**ADAPTER, task_type="SEQ_CLS")
    )
    heads = {name: whole(value.data) for name, value in model.named_parameters() if ".score." in name}
    original, copy = sorted(heads)[1], sorted(heads)[0]
    assert len(heads) == 2 and torch.equal(heads[original], heads[copy]) and heads[copy].any()
    with pytest.raises(package.CheckpointError, match="has no tensor .*, which BertModel needs"):
        package.load(out, mesh=mesh, model_class=transformers.BertModel)


class WithBuffer(LlamaForCausalLM):
    """A model with a buffer that its checkpoints hold."""

    def __init__(self, config):
        super().__init__(config)
        self.register_buffer("scale", torch.ones(3))


def test_buffers_of_the_checkpoint(nibble, tmp_path, mesh):
    model = WithBuffer(LlamaForCausalLM.config_class(**architectures.case("llama").config))
    model.scale.copy_(torch.tensor([2.0, 3.0, 5.0]))
    model.save_pretrained(tmp_path / "source")
    nibble.run("convert", tmp_path / "source", "-o", tmp_path / "out")
    loaded = package.load(tmp_path / "out", mesh=mesh, model_class=WithBuffer)
    assert loaded.scale.tolist() == [2, 3, 5]


@pytest.mark.parametrize(
    "options",
    [{"use_dora": True}, {"init_lora_weights": "pissa"}, {"trainable_token_indices": [1]}],
    ids=lambda options: next(iter(options)),
)
def test_adapters_that_begin_with_the_weights_are_refused(options, nibble, tmp_path, mesh):
    _, out = quantized("llama", nibble, tmp_path)
    with pytest.raises(package.CheckpointError, match="use no mesh"):
        package.load(out, mesh=mesh, peft_config=LoraConfig(**ADAPTER, **options))


def test_models_that_convert_their_weights_are_refused(nibble, tmp_path, mesh):
    _, out = quantized("mixtral", nibble, tmp_path)
    with pytest.raises(package.CheckpointError, match="load it without a mesh"):
        package.load(out, mesh=mesh)


def test_an_adapter_without_values_is_not_saved(nibble, tmp_path):
    _, out = quantized("llama", nibble, tmp_path)
    model = package.load(out, device="cpu", peft_config=LoraConfig(**ADAPTER))
    name, parameter = next((name, value) for name, value in model.named_parameters() if value.requires_grad)
    parameter.data = torch.empty(0)
    with pytest.raises(package.CheckpointError, match="has no values"):
        package.save_adapter(model, tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "adapter_model.safetensors").exists()
