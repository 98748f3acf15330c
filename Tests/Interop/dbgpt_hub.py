"""What DB-GPT-Hub's train/sft_train.py and predict/predict.py do with the arguments that README's guide gives them, on
a processor: their own want a card, and packages that only their datasets and metrics need.

    dbgpt_hub.py train|predict ARGUMENTS…

Names of arguments and defaults, the way the model is loaded and prepared, the adapter added, saved and found again are
those of its sources (model_args.py in configs; load_tokenizer.py, adapter.py and model_trainer.py in llm_base); an
argument that they do not have is an error here too. Steps and generated tokens are few.
"""

import argparse
import json
import os
import pathlib
import sys

# The Trainer of transformers 4 imports datasets where there is one, and this one wants a newer huggingface_hub.
sys.modules["datasets"] = None

import torch
import transformers
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.utils import CONFIG_NAME, WEIGHTS_NAME
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

DATA = pathlib.Path("dbgpt_hub_sql/data")
LAYERNORM_NAMES = ["norm", "ln_f", "ln_attn", "ln_mlp"]
STEPS, TOKENS, LONGEST = 2, 4, 112


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("model_name_or_path", "template", "checkpoint_dir", "dataset", "output_dir", "lr_scheduler_type",
                 "lora_target", "predicted_input_filename", "predicted_out_filename"):  # fmt: skip
        parser.add_argument(f"--{name}")
    for name in ("do_train", "bf16", "fp16", "plot_loss", "overwrite_cache", "overwrite_output_dir"):
        parser.add_argument(f"--{name}", action="store_true")
    for name, value in (("max_source_length", 512), ("max_target_length", 512), ("lora_rank", 8), ("save_steps", 500),
                        ("logging_steps", 500), ("per_device_train_batch_size", 8), ("gradient_accumulation_steps", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    for name, value in (("lora_alpha", 32.0), ("learning_rate", 5e-5), ("num_train_epochs", 3.0)):
        parser.add_argument(f"--{name}", type=float, default=value)
    parser.add_argument("--quantization_bit", type=int, choices=[4, 8])
    parser.add_argument("--finetuning_type", choices=["lora", "freeze", "full", "none"], default="lora")
    return parser.parse_args(words)


def load(settings: argparse.Namespace, compute_dtype, trainable: bool):
    more = {}
    if settings.quantization_bit == 4:
        more["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_compute_dtype=compute_dtype, bnb_4bit_use_double_quant=True,
            bnb_4bit_quant_type="nf4",
        )
        # Its own is LOCAL_RANK, or "auto" to predict.
        more["device_map"] = {"": "cpu"}
    config = AutoConfig.from_pretrained(settings.model_name_or_path, trust_remote_code=True)
    model = AutoModelForCausalLM.from_pretrained(
        settings.model_name_or_path, config=config, torch_dtype=compute_dtype, low_cpu_mem_usage=True,
        trust_remote_code=True, attn_implementation="eager", **more,
    )
    model = prepare_model_for_training(model) if trainable else model
    model = init_adapter(model, settings, trainable, is_mergeable=settings.quantization_bit is None)
    if not trainable:
        model.requires_grad_(False)
        model = model.to(torch.bfloat16) if settings.quantization_bit is None else model
    return model, AutoTokenizer.from_pretrained(settings.model_name_or_path)


def prepare_model_for_training(model):
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 and any(norm in name for norm in LAYERNORM_NAMES):
            parameter.data = parameter.data.to(torch.float32)
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable()
    model.config.use_cache = False
    dtype = model.lm_head.weight.dtype

    class CastOutputToFloat(torch.nn.Sequential):
        def forward(self, x):
            return super().forward(x.to(dtype)).to(torch.float32)

    model.lm_head = CastOutputToFloat(model.lm_head)
    return model


def init_adapter(model, settings: argparse.Namespace, trainable: bool, is_mergeable: bool):
    if settings.checkpoint_dir is not None:
        for name in (WEIGHTS_NAME, CONFIG_NAME):
            assert os.path.exists(os.path.join(settings.checkpoint_dir, name)), f"no {name}"
        model = PeftModel.from_pretrained(model, settings.checkpoint_dir, is_trainable=trainable)
        if is_mergeable:
            model = model.merge_and_unload()
    if trainable and settings.checkpoint_dir is None:
        model = get_peft_model(model, LoraConfig(
            task_type=TaskType.CAUSAL_LM, inference_mode=False, r=settings.lora_rank, lora_alpha=settings.lora_alpha,
            lora_dropout=0.1, target_modules=[target.strip() for target in settings.lora_target.split(",")],
        ))
    return model


def rows(tokenizer, name) -> list[dict]:
    result = []
    for row in json.loads(pathlib.Path(name).read_text()):
        prompt = tokenizer(row["instruction"] + row["input"])["input_ids"]
        answer = tokenizer(row["output"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        ids = (prompt + answer)[:LONGEST]
        result.append({"prompt": prompt, "input_ids": ids, "labels": ([-100] * len(prompt) + answer)[:LONGEST]})
    return result


def train(settings: argparse.Namespace) -> None:
    # Its order: bf16 where it is asked for, else float16.
    model, tokenizer = load(settings, torch.bfloat16 if settings.bf16 else torch.float16, trainable=True)
    data = [{key: row[key] for key in ("input_ids", "labels")}
            for row in rows(tokenizer, DATA / f"{settings.dataset}.json")]
    trainer = transformers.Trainer(
        model=model, train_dataset=data, data_collator=transformers.DataCollatorForSeq2Seq(tokenizer),
        args=transformers.TrainingArguments(
            output_dir=settings.output_dir, max_steps=STEPS, learning_rate=settings.learning_rate, bf16=settings.bf16,
            per_device_train_batch_size=settings.per_device_train_batch_size, gradient_accumulation_steps=2,
            use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="no", dataloader_pin_memory=False,
        ),
    )
    trainer.train()
    state = model.state_dict()
    trained = {name: state[name] for name, parameter in model.named_parameters() if parameter.requires_grad}
    model.save_pretrained(settings.output_dir, state_dict=trained, safe_serialization=True)
    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    report = {"transformers": transformers.__version__, "layers": len(layers),
              "compute": sorted({str(layer.compute_dtype) for layer in layers})}
    (pathlib.Path(settings.output_dir) / "report.json").write_text(json.dumps(report))


def predict(settings: argparse.Namespace) -> None:
    model, tokenizer = load(settings, None, trainable=False)
    with open(settings.predicted_out_filename, "w") as out:
        for row in rows(tokenizer, settings.predicted_input_filename):
            ids = torch.tensor([row["prompt"]])
            answer = model.generate(input_ids=ids, max_new_tokens=TOKENS, do_sample=False)[0, ids.shape[1] :]
            out.write(tokenizer.decode(answer, skip_special_tokens=True).replace("\n", " ") + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"train": train, "predict": predict}[sys.argv[1]](arguments(sys.argv[2:]))
