"""The second reader: which tool does a line sound like? A linear model over n-grams; a tenth of a millisecond.

G reads the line as a whole and copies what it names; this one knows many more wordings by their pieces. Their opinions
are multiplied where the tool is chosen, and where they differ the confidence falls, so that it becomes a question.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from helmsman.prompts.ngrams import FILE, features


@dataclass(frozen=True)
class Prior:
    """`weights` (buckets, labels), int8, one `scale` a label; `bias` (labels,); `trust`: its share in the choice."""

    labels: list[str]
    weights: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias: NDArray[np.float32]
    trust: float

    @classmethod
    def load(cls, folder: Path) -> Prior | None:
        """From a model's folder; None for a model that comes without one."""
        if not (folder / FILE).exists():
            return None
        with np.load(folder / FILE) as kept:
            labels = [str(label) for label in kept["labels"]]
            return cls(labels, kept["weights"], kept["scale"], kept["bias"], float(kept["trust"]))

    @cached_property
    def _index(self) -> dict[str, int]:
        return {label: i for i, label in enumerate(self.labels)}

    def log_probabilities(self, text: str, before: str = "") -> NDArray[np.float32]:
        """For each label, in their order, the logarithm of its probability."""
        found = features(text, before)
        summed = self.weights[found].sum(axis=0, dtype=np.float32) * self.scale
        logits = summed / np.sqrt(len(found), dtype=np.float32) + self.bias
        shifted = logits - logits.max()
        result: NDArray[np.float32] = shifted - np.log(np.exp(shifted).sum())
        return result

    def opinion(self, text: str, before: str, names: list[str]) -> NDArray[np.float32]:
        """What it adds to the logits of `names` (those it doesn't know get its least)."""
        known = self.log_probabilities(text, before)
        least = float(known.min())
        return np.array([known[self._index[n]] if n in self._index else least for n in names], np.float32) * self.trust
