"""Sums over the tokens that one input of a model has seen."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

# Rows of tokens that are squared at once, and rows of x·xᵀ that are computed at once: they bound what it takes beside.
TOKENS, ROWS = 512, 1024


class Sums:
    """Σx², in 64 bits, and if wanted Σx·xᵀ, of each of a parameter's matrices (1 unless it is stacked experts).

    Of x·xᵀ each batch is summed in 32 bits, batches in 64, and only blocks that reach to the diagonal or above are
    computed: it is symmetric.
    """

    def __init__(self, stacked: int | None, width: int, device: torch.device, gram: bool) -> None:
        """`stacked` is None for a parameter that is one matrix."""
        self.shape = stacked, width
        self.experts, self.is_stacked = stacked or 1, stacked is not None
        self.width, self.device, self.has_gram = width, device, gram
        self.squares = torch.zeros(self.experts, width, dtype=torch.float64, device=device)
        self.counts = [0] * self.experts
        self._grams: dict[int, torch.Tensor] = {}

    def add(self, expert: int, rows: torch.Tensor) -> None:
        """[tokens, width]"""
        if not len(rows):
            return
        self.counts[expert] += len(rows)
        for start in range(0, len(rows), TOKENS):
            self.squares[expert] += rows[start : start + TOKENS].double().square_().sum(0)
        if self.has_gram:
            self._add_gram(expert, rows.float())

    def _add_gram(self, expert: int, rows: torch.Tensor) -> None:
        gram = self._grams.get(expert)
        if gram is None:
            gram = torch.zeros(self.width, self.width, dtype=torch.float64, device=self.device)
            self._grams[expert] = gram
        for start in range(0, self.width, ROWS):
            gram[start : start + ROWS, start:] += rows[:, start : start + ROWS].T @ rows[:, start:]

    def is_finite(self) -> bool:
        """Also after rounding to 32 bits."""
        return bool(torch.isfinite(self.squares.float()).all())

    def squares_of(self, expert: int) -> np.ndarray:
        return self.squares[expert].float().cpu().numpy()

    def gram_of(self, expert: int) -> Iterator[np.ndarray]:
        """A few rows of it after another, in 32 bits. The diagonal are the sums of squares themselves."""
        gram = self._grams.pop(expert, None)
        for start in range(0, self.width, ROWS):
            stop = min(start + ROWS, self.width)
            if gram is None:
                yield np.zeros((stop - start, self.width), np.float32)
                continue
            rows = torch.empty(stop - start, self.width, dtype=torch.float32, device=self.device)
            rows[:, :start] = gram[:start, start:stop].T
            rows[:, stop:] = gram[start:stop, stop:]
            block = gram[start:stop, start:stop].triu(1).float()
            rows[:, start:stop] = block + block.T
            places = torch.arange(stop - start, device=self.device)
            rows[places, places + start] = self.squares[expert, start:stop].float()
            yield rows.cpu().numpy()
