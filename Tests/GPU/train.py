"""One training configuration: how much memory, how fast, and whether the loss falls. Or where memory ran out.

Trained as `nibble fit` assumes: LoRA in float32 on all linear layers of a frozen model, no autocast, SDPA attention,
checkpoints that are not reentrant. AdamW is torch's fused one, which is what transformers' Trainer takes on a card and
which needs no temporaries. Every step sees the same random tokens, so that a falling loss needs no data.
"""

import contextlib
import math
import statistics

import child

LEARNING_RATE = 2e-4


def without_warm_up() -> None:
    """transformers asks for the whole model's size in one block before it loads, as if no cap were there: without
    that, memory fills tensor by tensor, and what was allocated at the end says something."""
    import transformers.modeling_utils as modeling

    if hasattr(modeling, "caching_allocator_warmup"):
        modeling.caching_allocator_warmup = lambda *arguments, **options: None


def load(task: dict, device: str):
    import peft
    import torch
    import transformers

    torch.manual_seed(0)
    if task["model"] == "bf16":
        without_warm_up()
    settings = {"dtype": torch.bfloat16, "attn_implementation": "sdpa"}
    model = transformers.AutoModelForCausalLM.from_pretrained(task["folder"], device_map={"": device}, **settings)
    model.config.use_cache = False
    model.enable_input_require_grads()
    if task["checkpointing"]:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    targets = task["targets"] if task["targets"] == "all-linear" else task["targets"].split(",")
    config = peft.LoraConfig(r=task["rank"], lora_alpha=task["alpha"], target_modules=targets, task_type="CAUSAL_LM")
    return peft.get_peft_model(model, config).train()


def optimizer(name: str, trained: list):
    import bitsandbytes
    import torch

    if name == "paged-adamw":
        return bitsandbytes.optim.PagedAdamW32bit(trained, lr=LEARNING_RATE)
    return torch.optim.AdamW(trained, lr=LEARNING_RATE, fused=True)


class Run:
    """Knows how far it came, for the error that ends it."""

    def __init__(self, task: dict, place):
        self.task, self.place = task, place
        self.during, self.losses, self.seconds, self.loading = "loading the model", [], [], None

    def go(self) -> None:
        import torch

        model = load(self.task, self.place.device)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.trained = sum(parameter.numel() for parameter in trained)
        self.place.note()
        self.loading = self.place.figures()
        if self.place.ran_out(None):
            # Loaders may go on with what they have.
            raise MemoryError("memory ran out while the model was loaded")
        self.place.reset()
        steps = optimizer(self.task["optimizer"], trained)
        vocabulary = model.config.vocab_size
        generator = torch.Generator().manual_seed(1)
        tokens = torch.randint(3, vocabulary, (1, self.task["sequence"]), generator=generator).to(self.place.device)
        for number in range(1, self.task["steps"] + 1):
            self.during = f"step {number}"
            with child.Clock(self.place) as clock:
                loss = model(input_ids=tokens, labels=tokens).loss
                loss.backward()
                steps.step()
                steps.zero_grad(set_to_none=True)
            self.losses.append(loss.item())
            self.seconds.append(clock.seconds)
            del loss
            self.place.note()

    def figures(self) -> dict:
        found = {"during": self.during, "steps": len(self.losses), "losses": self.losses, "seconds": self.seconds,
                 "trained": getattr(self, "trained", None), "loading": self.loading, "memory": self.place.figures()}
        if len(self.seconds) > 1:
            # The first step also allocates and picks kernels.
            found["tokens_per_second"] = self.task["sequence"] / statistics.median(self.seconds[1:])
        found["losses"] = [loss if math.isfinite(loss) else None for loss in self.losses]
        return found


def work(task: dict) -> dict:
    import card

    place = card.place(task["place"], task["limit"])
    run = Run(task, place)
    try:
        run.go()
        outcome = {"outcome": "trained"}
    except Exception as error:
        if not place.ran_out(error):
            raise
        with contextlib.suppress(Exception):
            place.note()
        outcome = {"outcome": "out of memory", "message": str(error).strip().splitlines()[0][:300]}
    return outcome | run.figures()


if __name__ == "__main__":
    child.main(work)
