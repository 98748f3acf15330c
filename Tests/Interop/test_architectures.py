"""What Nibble writes loads in the stock trainer, and is what bitsandbytes itself would have made."""

import pytest
import torch

import oracle
from nibble import load
from architectures import CASES

pytestmark = pytest.mark.kernels

PARAMETERS = [
    pytest.param(case, id=case.name, marks=[pytest.mark.long] if case.long else []) for case in CASES
]


def test_enough_architectures():
    assert len({case.model for case in CASES if not case.long}) >= 25


@pytest.mark.parametrize("case", PARAMETERS)
def test_architecture(case, nibble, tmp_path):
    source, out, saved = tmp_path / "source", tmp_path / "out", tmp_path / "reference"
    case.create().save_pretrained(source)
    nibble.quantize(source, out)
    nibble.verify(out, "--against", source)

    reference = case.model_class.from_pretrained(source, quantization_config=oracle.bitsandbytes_config())
    reference.save_pretrained(saved)
    quantized = oracle.check_checkpoint(out, source, oracle.transposed_modules(reference))
    assert (quantized > 0) == case.quantizes
    oracle.check_saved_alike(out, saved)

    model, information = case.model_class.from_pretrained(out, output_loading_info=True)
    assert not any(information.values()), information
    assert oracle.check_loaded_alike(model, reference) == quantized
    loaded = load(out, device="cpu", verify=True, model_class=case.model_class)
    assert oracle.check_identical(loaded, model) == quantized

    if case.run:
        example = case.example(reference.config, reference.dtype)
        with torch.inference_mode():
            expected, logits = reference(**example).logits, model(**example).logits
        assert torch.isfinite(expected).all()
        assert oracle.relative_error(logits, expected) <= oracle.MAXIMUM_RELATIVE_LOGIT_ERROR
