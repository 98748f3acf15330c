"""Where a child process computes: one card with a cap on torch's memory, or the processor.

Both answer the same questions, so that the steps run alike; the processor answers None where only a card can tell.
"""

import gc

import driver
import torch


class Processor:
    device = "cpu"

    def synchronize(self) -> None:
        pass

    def reset(self) -> None:
        pass

    def note(self) -> None:
        pass

    def figures(self) -> dict | None:
        return None

    def ran_out(self, error: BaseException | None) -> bool:
        return False


class Card:
    """The first card.

    Device-wide use is free memory before this process had a context, less free memory now: it holds the context,
    libraries, managed memory on the card and torch's cache. What of it is not torch's is noted after every step;
    the peak is the largest of those plus torch's own peak of reserved memory.
    """

    device = "cuda:0"

    def __init__(self, limit: int | None = None):
        before = driver.free_bytes()
        torch.cuda.init()
        torch.zeros(1, device=self.device)
        total = torch.cuda.mem_get_info(0)[1]
        self.free_before = total if before is None else before
        self.total = total
        self.limit = min(limit or total, total)
        torch.cuda.set_per_process_memory_fraction(self.limit / total, 0)
        self.outside = 0
        self.note()
        self.context = self.outside

    def synchronize(self) -> None:
        torch.cuda.synchronize(0)

    def reset(self) -> None:
        """Peaks begin anew; what is cached is given back first, so that reserved memory does too."""
        self.synchronize()
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(0)
        self.outside = 0
        self.note()

    def note(self) -> None:
        self.synchronize()
        used = self.free_before - torch.cuda.mem_get_info(0)[0]
        self.outside = max(self.outside, used - torch.cuda.memory_reserved(0))

    def figures(self) -> dict:
        reserved = torch.cuda.max_memory_reserved(0)
        statistics = torch.cuda.memory_stats(0)
        return {
            "total": self.total, "limit": self.limit, "context": self.context,
            "allocated": torch.cuda.max_memory_allocated(0), "reserved": reserved,
            "outside": self.outside, "device": reserved + self.outside,
            "ooms": statistics.get("num_ooms", 0), "retries": statistics.get("num_alloc_retries", 0),
        }

    def ran_out(self, error: BaseException | None) -> bool:
        """Loaders wrap the error in their own, so the allocator's count decides, or the error in the chain."""
        if torch.cuda.memory_stats(0).get("num_ooms", 0):
            return True
        while error is not None:
            if isinstance(error, torch.OutOfMemoryError):
                return True
            error = error.__cause__ or error.__context__
        return False


def place(name: str, limit: int | None = None) -> Card | Processor:
    return Card(limit) if name == "cuda" else Processor()
