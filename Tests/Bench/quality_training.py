"""QLoRA on bases of the same size: loss and exact matches in the fixture's dialect, three seeds each."""

import importlib.util
import itertools
import pathlib
import random
import tempfile

import peft
import torch
import transformers

import quality_decoders
from quality_decoders import FIXTURE, NIBBLE, ROOT, run

DIALECT = ROOT / "fixtures" / "sql-llama-dialect"
SEEDS = (11, 12, 13)
STEPS, BATCH, RATE = 300, 32, 2e-3
QUESTIONS = 100


def dialect():
    specification = importlib.util.spec_from_file_location("sql_llama_dialect", DIALECT / "make.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def examples(make, tokenizer, seed: int):
    """Batches of rows of about the same length, in an order that the seed decides."""
    stream, order = make.pairs(seed, held_out=False), random.Random(seed)
    while True:
        pool = sorted((make.base.encode(tokenizer, pair) for pair in itertools.islice(stream, 32 * BATCH)), key=lambda row: len(row[0]))
        groups = [pool[start : start + BATCH] for start in range(0, len(pool), BATCH)]
        order.shuffle(groups)
        for group in groups:
            yield make.base.pad(group, tokenizer.pad_token_id)


def train(make, folder: pathlib.Path, seed: int, adapter: pathlib.Path | None) -> dict:
    """A LoRA as the fixture's own was trained, on a base in 4 bits; what it reaches on held-out questions."""
    torch.manual_seed(seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(FIXTURE)
    # Attention in parts, because the fused one's backward pass in bf16 takes longer on a CPU than all the rest.
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="eager")
    model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    # On a CPU, bitsandbytes repacks a weight for inference, in place and for good, at the first input that needs no gradient.
    model.enable_input_require_grads()
    if adapter is None:
        settings = peft.LoraConfig(task_type="CAUSAL_LM", r=make.RANK, lora_alpha=make.ALPHA, target_modules="all-linear")
        model = peft.get_peft_model(model, settings)
    else:
        model = peft.PeftModel.from_pretrained(model, adapter, is_trainable=True)
    matrices = [each for each in model.train().parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(matrices, lr=RATE, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: make.base.learning_rate(step, STEPS))
    inner = model.get_base_model()
    for ids, targets in itertools.islice(examples(make, tokenizer, seed), STEPS):
        with torch.autocast("cpu", torch.bfloat16):
            hidden = inner.model(input_ids=ids[:, :-1]).last_hidden_state
            logits = inner.lm_head(hidden[targets != -100])
        loss = torch.nn.functional.cross_entropy(logits.float(), targets[targets != -100])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(matrices, 1.0)
        optimizer.step()
        schedule.step()
        model.zero_grad()
    return make.evaluate(model.eval(), tokenizer, QUESTIONS)


def main() -> None:
    make = dialect()
    print(f"QLoRA on sql-llama's dialect, {STEPS} steps of {BATCH}: held-out loss, exact matches of {QUESTIONS}; seeds {SEEDS}")
    with tempfile.TemporaryDirectory(prefix="nibble-quality-") as folder:
        place = pathlib.Path(folder)
        subject = quality_decoders.fixture(place)
        quality_decoders.calibrate(subject, subject.texts, place / "own")
        better = ["--scale-search", "mse", "--feedback", place / "own"]
        for name, options in {"bitsandbytes NF4": [], "feedback with search": better}.items():
            run(NIBBLE, "quantize", FIXTURE, "-o", place / "out", "--force", "--quiet", *options)
            found = [train(make, place / "out", seed, None) for seed in SEEDS]
            losses, exact = [each["loss"] for each in found], [each["exact"] for each in found]
            print(f"  {name:40} {' '.join(f'{loss:.4f}' for loss in losses)}  mean {sum(losses) / len(losses):.4f}  {exact} {sum(exact)}", flush=True)
