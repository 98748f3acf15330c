"""Optimizer state that leaves the card when it is full, and comes back: PagedAdamW under pressure.

A small network is trained twice with the same numbers: with bitsandbytes' AdamW whose state stays on the card, and
with the paged one. After some steps ordinary memory, which cannot be moved, fills the card until less is left than
the state needs. Training goes on, then the memory is given back and it goes on again.

That state was moved follows from counting: it is managed memory, every step uses all of it on the card, and what
ordinary allocations leave of the card is less than it. What they leave is the free memory of the time when no
managed memory existed, less what was allocated since: the driver's later answers also count pages that it keeps for
managed memory without using them. Only this state is managed, a few hundred MB, and half of it always finds room:
managed memory far beyond a card's size can stall a machine.
"""

import os
import time

import child

WIDTH, LAYERS, BATCH = 4096, 3, 64
STEPS = 4  # in each of three parts: before, under and after the pressure
FILLER = 64 << 20  # bytes of one ordinary allocation


def network(device: str, width: int, layers: int):
    import torch

    torch.manual_seed(3)
    linears = [torch.nn.Linear(width, width, bias=False) for _ in range(layers)]
    model = torch.nn.Sequential(*[part for linear in linears for part in (linear, torch.nn.Tanh())]).to(device)
    inputs, targets = torch.randn(BATCH, width).to(device), torch.randn(BATCH, width).tanh().to(device)
    return model, inputs, targets


class Training:
    """Steps whose losses are kept."""

    def __init__(self, place, paged: bool, width: int = WIDTH, layers: int = LAYERS):
        import bitsandbytes

        self.place = place
        self.model, self.inputs, self.targets = network(place.device, width, layers)
        kind = bitsandbytes.optim.PagedAdamW32bit if paged else bitsandbytes.optim.AdamW32bit
        self.optimizer = kind(self.model.parameters(), lr=1e-4)
        self.losses = []

    def backward(self) -> float:
        import torch

        loss = torch.nn.functional.mse_loss(self.model(self.inputs), self.targets)
        loss.backward()
        return loss.item()

    def go(self, steps: int = STEPS) -> float:
        """Seconds."""
        started = time.perf_counter()
        for _ in range(steps):
            loss = self.backward()
            self.optimizer.step()
            # The gradients' memory stays, so that nothing is allocated while the card is full.
            self.optimizer.zero_grad(set_to_none=False)
            self.losses.append(loss)
        self.place.synchronize()
        return time.perf_counter() - started

    def reserve(self) -> int:
        """All memory but the state's is allocated; bytes of the state to come."""
        self.backward()
        self.optimizer.zero_grad(set_to_none=False)
        return sum(8 * parameter.numel() for parameter in self.model.parameters())

    def states(self) -> list:
        return [state[part] for state in self.optimizer.state.values() for part in ("state1", "state2")]


class Filler:
    """Ordinary memory of the card, allocated past torch, whose cache an error of its own would empty."""

    def __init__(self, driver):
        self.driver, self.pointers = driver, []

    @property
    def size(self) -> int:
        return len(self.pointers) * FILLER

    def fill(self, size: int) -> None:
        """Up to a size, or as far as the driver gives."""
        while self.size + FILLER <= size:
            pointer = self.driver.allocate(FILLER)
            if pointer is None:
                return
            self.pointers.append(pointer)

    def release(self) -> None:
        while self.pointers:
            self.driver.free(self.pointers.pop())


def free() -> int:
    import torch

    torch.cuda.synchronize(0)
    return torch.cuda.mem_get_info(0)[0]


def prefetch(states: list, to_cpu: bool) -> None:
    from bitsandbytes import functional

    for state in states:
        functional.prefetch_tensor(state, to_cpu=to_cpu)


def places(driver, states: list) -> list[int]:
    """Where each was last asked to go: the card's number, or -1 for the host."""
    return sorted({driver.last_prefetch(state.data_ptr(), state.nbytes) for state in states})


def attempt(place, driver, full_at_first: bool) -> dict:
    """The card is filled when the state is already there, or before it is made."""
    import torch

    training = Training(place, paged=True)
    size = training.reserve()
    left, reserved = free(), torch.cuda.memory_reserved(0)
    found = {"state_bytes": size, "full_at_first": full_at_first, "free_before_state": left}
    filler, seconds = Filler(driver), {}
    try:
        if not full_at_first:
            seconds["before"] = training.go()
            found["free_with_state"] = free()
        filler.fill(left - size // 2)
        found |= {"filled": filler.size, "free_full": free()}
        # No steps where nothing was pushed out: they would prove nothing.
        if left - filler.size < size:
            seconds["under"] = training.go()
        grown = torch.cuda.memory_reserved(0) - reserved
        found["room"] = left - filler.size - grown
    finally:
        filler.release()
    seconds["after"] = training.go()
    managed = [state for state in training.states() if getattr(state, "is_paged", False)]
    found["managed_bytes"] = sum(state.nbytes for state in managed)
    # By request to the host and back, as the driver confirms it, and on with training.
    prefetch(managed, to_cpu=True)
    found |= {"free_on_host": free(), "asked_to_host": places(driver, managed)}
    prefetch(managed, to_cpu=False)
    found |= {"free_on_card": free(), "asked_to_card": places(driver, managed)}
    seconds["last"] = training.go()
    return found | {"losses": training.losses, "seconds": seconds}


def work(task: dict) -> dict:
    # Read when cuBLAS starts: the same sums in the same order.
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    import card
    import driver as libraries
    import torch

    driver = libraries.Driver()
    if not driver.can_page():
        return {"supported": False}
    torch.use_deterministic_algorithms(True)
    place = card.place("cuda")
    plain = Training(place, paged=False)
    plain.reserve()
    for _ in range(4):
        plain.go()
    expected = plain.losses
    del plain
    place.reset()
    found = attempt(place, driver, task["full_at_first"])
    return {"supported": True, "unpaged_losses": expected} | found


if __name__ == "__main__":
    child.main(work)
