"""The trained fixture in 4 bits: logits on the card against those on the processor, and bitsandbytes' own
quantization on the device against Nibble's codes. The same of a file whose scales were searched: half of them are
negative, which the kernels of a card have to multiply by as the processor's do."""

import child

PROMPT_TOKENS = 128
FIRST_TOKEN = 4  # below are special ones


def logits(folder: str, device: str, dtype):
    """With float32 the only difference left is the order of sums; bfloat16 is how the model is used."""
    import bitsandbytes
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, device_map={"": device}).eval()
    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.compute_dtype, module.compute_type_is_set = dtype, True
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(FIRST_TOKEN, model.config.vocab_size, (2, PROMPT_TOKENS), generator=generator)
    with torch.no_grad():
        return model(input_ids=tokens.to(device)).logits.float().cpu()


def compare_logits(folder: str, device: str) -> dict:
    import torch

    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        here, there = logits(folder, "cpu", dtype), logits(folder, device, dtype)
        found[str(dtype).removeprefix("torch.")] = {
            "relative": ((there.double() - here.double()).norm() / here.double().norm()).item(),
            "largest": (there - here).abs().max().item(), "finite": bool(torch.isfinite(there).all()),
            "same_choice": (there.argmax(-1) == here.argmax(-1)).double().mean().item(),
        }
    return found


def compare_values(folder: str, device: str) -> dict:
    """How many of the weights that the codes stand for are the same bits on the device and on the processor."""
    import bitsandbytes
    import torch
    import transformers

    def values(place: str) -> dict:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, device_map={"": place})
        return {name: bitsandbytes.functional.dequantize_4bit(parameter.data, parameter.quant_state).cpu()
                for name, parameter in model.named_parameters() if isinstance(parameter, bitsandbytes.nn.Params4bit)}

    here, there = values("cpu"), values(device)
    return {"values": sum(value.numel() for value in here.values()),
            "equal": sum(int((here[name] == there[name]).sum()) for name in here)}


def equal_codes(mine, theirs) -> int:
    """Two codes lie in a byte."""
    return int(((mine >> 4) == (theirs >> 4)).sum() + ((mine & 15) == (theirs & 15)).sum())


def compare_codes(folder: str, source: str, device: str) -> dict:
    """Of all quantized weights: how many codes are equal, and how many block maxima after their own quantization to
    8 bits. In float32 Nibble's are those of bitsandbytes on the processor, with which the device's are compared."""
    import checkpoint
    from bitsandbytes import functional

    weights = checkpoint.four_bit_weights(checkpoint.tensors(folder))
    original = checkpoint.tensors(source)
    counts = dict.fromkeys(("codes", "equal_codes", "absmax", "equal_absmax", "equal_nested"), 0)
    for name, weight in weights.items():
        value = original[name].to(device)
        packed, state = functional.quantize_4bit(value, blocksize=64, quant_type="nf4")
        _, here = functional.quantize_4bit(original[name], blocksize=64, quant_type="nf4")
        _, nested = functional.quantize_4bit(value, blocksize=64, quant_type="nf4", compress_statistics=True)
        counts["codes"] += 2 * packed.numel()
        counts["equal_codes"] += equal_codes(weight.packed.flatten(), packed.cpu().flatten())
        counts["absmax"] += state.absmax.numel()
        counts["equal_absmax"] += int((state.absmax.cpu() == here.absmax).sum())
        counts["equal_nested"] += int((nested.absmax.cpu() == weight.parts["absmax"]).sum())
    return {"weights": len(weights)} | counts


def negative_scales(folder: str) -> int:
    """How many blocks have one."""
    import checkpoint

    # The first half of the map of 8 bits is negative, and the offset is 0.
    return sum(int((weight.parts["nested_quant_map"][weight.parts["absmax"].long()] < 0).sum())
               for weight in checkpoint.four_bit_weights(checkpoint.tensors(folder)).values())


def work(task: dict) -> dict:
    import card
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    place = card.place(task["place"])
    return {"logits": compare_logits(task["folder"], place.device),
            "values": compare_values(task["folder"], place.device),
            "codes": compare_codes(task["folder"], task["source"], place.device),
            "searched": {"logits": compare_logits(task["searched"], place.device),
                         "values": compare_values(task["searched"], place.device),
                         "negative": negative_scales(task["searched"])}}


if __name__ == "__main__":
    child.main(work)
