"""Trains LoRAs on 4-bit bases with one of the stock trainers. A program of its own, because it may be started as
several processes, or under another version of transformers; one program for several runs, because importing is slow.

    train.py trainer|sft|db-gpt-hub RUN...

A run is a JSON object: "model", a checkpoint in 4 bits, or with "quantize" (nf4 or fp4) one in 16 bits that
bitsandbytes quantizes while it is loaded; "output", the folder that gets what the trainer itself saves, the adapter in
`initial` as it was before training, and report.json: the loss of every optimizer step and what the run was (not
stdout, because DeepSpeed and the compiler that it starts print there); and whatever of DEFAULTS is to be otherwise.

The data are the dialect of fixtures/sql-llama-dialect, which the base cannot write, so the loss has far to fall. Every
optimizer step sees the same rows, so it falls at every step. There is no dropout, and one seed.
"""

import hashlib
import importlib.util
import itertools
import json
import os
import pathlib
import signal
import sys
import types

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if sys.argv[1:2] == ["db-gpt-hub"]:
    # The Trainer of transformers 4 imports datasets where there is one, and this one wants a newer huggingface_hub.
    sys.modules["datasets"] = None

import torch
import transformers
from bitsandbytes.nn import Params4bit
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

FIXTURE = pathlib.Path(__file__).resolve().parents[2] / "fixtures" / "sql-llama-dialect"
SEED = 11
RANK, ALPHA = 64, 32
DEFAULTS = {"quantize": None, "steps": 5, "accumulation": 16, "rate": 5e-4, "bf16": True}
# In tokens: what the rows may have, so that a step takes little.
LONGEST = 112
# In seconds. Processes that wait for one another must not outlive the test that started them.
LIMIT = 1200
# Attention in parts, because the fused one's backward pass in bf16 takes longer on a CPU than all the rest.
ATTENTION = {"attn_implementation": "eager"}


def fixture_module():
    specification = importlib.util.spec_from_file_location("sql_llama_dialect", FIXTURE / "make.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def rows(tokenizer, count: int) -> list:
    """The first `count` training pairs that are short, and their tokens: (pair, ids, where the answer starts)."""
    make = fixture_module()
    known = ((pair, *make.base.encode(tokenizer, pair)) for pair in make.pairs(make.TRAIN_SEED, held_out=False))
    return list(itertools.islice((row for row in known if len(row[1]) <= LONGEST), count))


def settings(kind: str) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16)


def load(run):
    """A checkpoint in 4 bits says itself how it is to be loaded."""
    quantize = {"quantization_config": settings(run.quantize)} if run.quantize else {}
    return AutoModelForCausalLM.from_pretrained(run.model, dtype=torch.bfloat16, **quantize, **ATTENTION)


def load_as_db_gpt_hub(run):
    """As load_model_and_tokenizer in its load_tokenizer.py does with --quantization_bit 4 --quantization_type nf4
    --double_quantization True --bf16: it passes settings of quantization whatever the checkpoint is, and a config that
    it read before. Its device is LOCAL_RANK, which here is the CPU."""
    common = {"trust_remote_code": True, "cache_dir": None, "revision": "main", "use_auth_token": None}
    config = AutoConfig.from_pretrained(run.model, **common)
    return AutoModelForCausalLM.from_pretrained(
        run.model, config=config, torch_dtype=torch.bfloat16, low_cpu_mem_usage=True, device_map={"": "cpu"},
        quantization_config=settings(run.quantize or "nf4"), **common, **ATTENTION)


def lora(targets) -> LoraConfig:
    return LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=targets)


def arguments(run) -> dict:
    """What TrainingArguments and SFTConfig are given alike."""
    return {
        "output_dir": str(run.output), "seed": SEED, "max_steps": run.steps, "logging_steps": 1,
        "per_device_train_batch_size": 1, "gradient_accumulation_steps": run.accumulation,
        "learning_rate": run.rate, "lr_scheduler_type": "constant", "weight_decay": 0.0,
        "bf16": run.bf16, "use_cpu": True, "gradient_checkpointing": True,
        "save_strategy": "no", "report_to": [], "disable_tqdm": True, "dataloader_pin_memory": False,
    }


def sft_trainer(run, tokenizer, data):
    import datasets
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    data = [{"prompt": pair.prompt, "completion": " " + pair.sql} for pair, _, _ in data]
    return SFTTrainer(
        model=load(run), args=SFTConfig(**arguments(run), max_length=LONGEST), processing_class=tokenizer,
        train_dataset=datasets.Dataset.from_list(data), peft_config=lora("all-linear"))


def plain_trainer(kind: str, run, tokenizer, data):
    """Only the answer and its end mark are learned, which is what SFTTrainer makes of a completion too."""
    if kind == "db-gpt-hub":
        model, targets, more = load_as_db_gpt_hub(run), ["q_proj", "v_proj"], {}
        model = prepare_model_for_kbit_training(model)
    else:
        # DistributedDataParallel cannot do with reentrant checkpointing. Without input gradients bitsandbytes may
        # take the layers for ones of inference.
        model, targets, more = load(run), "all-linear", {"gradient_checkpointing_kwargs": {"use_reentrant": False}}
        model = prepare_model_for_kbit_training(model, **more)
        model.enable_input_require_grads()
    data = [{"input_ids": ids, "labels": [-100] * start + ids[start:]} for _, ids, start in data]
    return transformers.Trainer(
        model=get_peft_model(model, lora(targets)), args=transformers.TrainingArguments(**arguments(run), **more),
        train_dataset=data, data_collator=transformers.DataCollatorForSeq2Seq(tokenizer), processing_class=tokenizer)


def base_digest(model) -> str:
    """Of every packed 4-bit weight and of its state."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if isinstance(parameter, Params4bit):
            digest.update(name.encode() + parameter.detach().numpy().tobytes())
            for key, value in sorted(parameter.quant_state.as_dict(packed=True).items()):
                digest.update(key.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def train(kind: str, run):
    transformers.set_seed(SEED)
    output = pathlib.Path(run.output)
    tokenizer = AutoTokenizer.from_pretrained(run.model, padding_side="right")
    data = rows(tokenizer, run.accumulation * int(os.environ.get("WORLD_SIZE", "1")))
    trainer = sft_trainer(run, tokenizer, data) if kind == "sft" else plain_trainer(kind, run, tokenizer, data)
    model = trainer.model
    base = base_digest(model)
    if trainer.is_world_process_zero():
        model.save_pretrained(output / "initial")
    trainer.train()
    trainer.save_model()
    if not trainer.is_world_process_zero():
        return
    weights = [parameter for parameter in model.parameters() if isinstance(parameter, Params4bit)]
    report = {
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "transformers": transformers.__version__,
        "quantized": len(weights),
        "kinds": sorted({weight.quant_type for weight in weights}),
        "checkpointing": all(m.gradient_checkpointing for m in model.modules() if hasattr(m, "gradient_checkpointing")),
        "processes": trainer.accelerator.num_processes,
        "wrapped": type(trainer.model_wrapped).__name__,
        "base": base,
        "base_unchanged": base_digest(model) == base,
    }
    (output / "report.json").write_text(json.dumps(report, indent=2) + "\n")


def main():
    signal.alarm(LIMIT)
    # Several programs run at once, and with one thread every sum has one order.
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    kind, *runs = sys.argv[1:]
    for run in runs:
        train(kind, types.SimpleNamespace(**DEFAULTS | json.loads(run)))


if __name__ == "__main__":
    main()
