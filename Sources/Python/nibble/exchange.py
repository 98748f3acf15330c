"""Which rank reads which bytes, and how the others get what it read.

Bytes are read in pieces, the parts of a tensor that have a digest of their own. A piece that lies within one rank's
slice is read by that rank and goes nowhere else. A piece that several ranks need (because a cut goes through it, or
because everyone needs the tensor, as with quantization statistics) is read and checked by one of them and sent to the
others. So all ranks together read every byte once, whatever the number of ranks and wherever the cuts lie.
"""

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from .errors import CheckpointError
from .lazy import LazyTensor

# Ranks that wait longer for another are taken to have lost it.
PATIENCE = datetime.timedelta(minutes=30)


@dataclass
class Wanted:
    """What the ranks want of one tensor: a range of its bytes each."""

    tensor: LazyTensor
    ranges: list[tuple[int, int]]
    # Where this rank's range goes, as flat bytes.
    target: torch.Tensor
    # (start, stop, rank that reads), the pieces in order.
    pieces: list[tuple[int, int, int]] = field(default_factory=list)

    def overlap(self, rank: int, start: int, stop: int) -> tuple[int, int]:
        begin, end = self.ranges[rank]
        begin, end = max(begin, start), min(end, stop)
        return (begin, end) if begin < end else (start, start)


def assign(wanted: list[Wanted], ranks: int) -> None:
    """Gives every piece to the rank that needs most of it and, among equals, has least to read. The same on all."""
    load = [0] * ranks
    for item in wanted:
        size, piece = item.tensor.size, item.tensor.piece
        item.pieces = []
        for start in range(0, size, piece):
            stop = min(start + piece, size)
            needs = [end - begin for begin, end in (item.overlap(rank, start, stop) for rank in range(ranks))]
            if not any(needs):
                continue
            reader = min(range(ranks), key=lambda rank: (-needs[rank], load[rank], rank))
            load[reader] += stop - start
            item.pieces.append((start, stop, reader))


class Exchange:
    """A group of ranks that load together. Nothing hangs on a rank that failed: it says so, or its connection ends."""

    def __init__(self, ranks: list[int]):
        # Always through host memory: that is where the maps are, and gloo notices a rank that went away.
        self.ranks = sorted(ranks)
        self.group = dist.new_group(self.ranks, backend="gloo", timeout=PATIENCE)
        self.rank, self.size = dist.get_rank(self.group), len(ranks)

    def close(self) -> None:
        dist.destroy_process_group(self.group)

    def together(self, what: str, work: Callable):
        """Runs `work` here; raises on every rank if it failed on one. Returns what it gave."""
        result, error = None, None
        try:
            result = work()
        except Exception as caught:
            error = caught
        try:
            failed = torch.tensor([error is not None], dtype=torch.int32)
            dist.all_reduce(failed, dist.ReduceOp.MAX, group=self.group)
            messages: list = [None] * self.size
            if failed.item():
                dist.all_gather_object(messages, None if error is None else str(error), group=self.group)
        except RuntimeError as lost:
            raise CheckpointError(f"{what}: another rank went away: {lost}") from (error or lost)
        if error is not None:
            raise error
        for rank, message in enumerate(messages):
            if message is not None:
                raise CheckpointError(f"{what}: rank {self.ranks[rank]}: {message}")
        return result

    def prefetch(self, wanted: list[Wanted]) -> None:
        """Has the system read this rank's pieces while others are dealt with."""
        for item in wanted:
            for start, stop, reader in item.pieces:
                if reader == self.rank:
                    item.tensor.will_need(start, stop)

    def fill(self, wanted: list[Wanted]) -> None:
        """Reads this rank's pieces of some tensors, and gives and takes what belongs elsewhere."""
        outgoing: list[list[memoryview]] = [[] for _ in range(self.size)]
        incoming: list[list[torch.Tensor]] = [[] for _ in range(self.size)]

        def read() -> None:
            for item in wanted:
                for start, stop, reader in item.pieces:
                    if reader != self.rank:
                        begin, end = item.overlap(self.rank, start, stop)
                        if begin < end:
                            incoming[reader].append(self._place(item, begin, end))
                        continue
                    data = item.tensor.bytes(start, stop)
                    for rank in range(self.size):
                        begin, end = item.overlap(rank, start, stop)
                        if begin == end:
                            continue
                        part = data[begin - start : end - start]
                        if rank == self.rank:
                            self._place(item, begin, end).copy_(torch.frombuffer(part, dtype=torch.uint8))
                        else:
                            outgoing[rank].append(part)

        self.together("loading", read)
        self.together("loading", lambda: self._swap(outgoing, incoming))

    def _place(self, item: Wanted, begin: int, end: int) -> torch.Tensor:
        first = item.ranges[self.rank][0]
        return item.target[begin - first : end - first]

    def _swap(self, outgoing: list[list[memoryview]], incoming: list[list[torch.Tensor]]) -> None:
        sent = [sum(map(len, parts)) for parts in outgoing]
        received = [sum(part.numel() for part in parts) for parts in incoming]
        out = bytearray(b"".join(b"".join(parts) for parts in outgoing))
        into = torch.empty(sum(received), dtype=torch.uint8)
        given = torch.frombuffer(out, dtype=torch.uint8) if out else torch.empty(0, dtype=torch.uint8)
        dist.all_to_all_single(into, given, received, sent, group=self.group)
        position = 0
        for parts in incoming:
            for part in parts:
                part.copy_(into[position : position + part.numel()])
                position += part.numel()
