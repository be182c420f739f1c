"""Trains the second reader (`helmsman/models/prior.py`): `python -m finetune.prior weights/g`. Half a minute.

Logistic regression on the requests as they were written, names masked; the held-out ones decide how far it is trusted
beside G.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch.nn import functional

from finetune.utterances import Dialogue, read
from helmsman.prompts.ngrams import BUCKETS, FILE, features

EPOCHS = 8
BATCH = 64
RATE = 0.05
SMOOTHING = 0.05


@dataclass(frozen=True)
class Row:
    """A line as feature numbers, and the tool it asks for first."""

    features: list[int]
    tool: str


def rows(dialogues: Sequence[Dialogue]) -> Iterator[Row]:
    """Every turn, with the tool of the turn before it."""
    for dialogue in dialogues:
        before = ""
        for request in dialogue.requests:
            yield Row(features(request.text, before), request.tools[0])
            before = request.tools[-1]


class Linear(torch.nn.Module):
    """Sums of weights over a line's features, in step with how many they are."""

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__()
        self.labels = list(labels)
        self.weights = torch.nn.EmbeddingBag(BUCKETS, len(labels), mode="sum", sparse=True)
        self.bias = torch.nn.Parameter(torch.zeros(len(labels)))
        torch.nn.init.zeros_(self.weights.weight)

    def forward(self, batch: Sequence[Row]) -> torch.Tensor:
        """Logits (lines, labels)."""
        lengths = [len(row.features) for row in batch]
        flat = torch.tensor([f for row in batch for f in row.features])
        starts = torch.tensor([0, *np.cumsum(lengths)[:-1].tolist()])
        shares = torch.repeat_interleave(torch.tensor(lengths).float().rsqrt(), torch.tensor(lengths))
        summed: torch.Tensor = self.weights(flat, starts, per_sample_weights=shares)
        return summed + self.bias


def train(found: Sequence[Row], seed: int = 1) -> Linear:
    """Deterministic for a seed."""
    model = Linear(sorted({row.tool for row in found}))
    target = {tool: i for i, tool in enumerate(model.labels)}
    optimizer = torch.optim.Adagrad(model.parameters(), lr=RATE)
    order = list(found)
    for epoch in range(EPOCHS):
        Random(seed + epoch).shuffle(order)
        for i in range(0, len(order), BATCH):
            batch = order[i : i + BATCH]
            wanted = torch.tensor([target[row.tool] for row in batch])
            optimizer.zero_grad()
            functional.cross_entropy(model(batch), wanted, label_smoothing=SMOOTHING).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model


def accuracy(model: Linear, found: Sequence[Row]) -> float:
    """The share of lines whose tool it would choose, 0..1."""
    with torch.no_grad():
        best = model(found).argmax(dim=1).tolist()
    right: list[bool] = [model.labels[b] == row.tool for b, row in zip(best, found, strict=True)]
    return sum(right) / len(right)


def save(model: Linear, folder: Path, trust: float) -> None:
    """As int8, which changes no choice that matters; `trust` is its share beside G."""
    weights = model.weights.weight.detach().numpy()
    scale = np.abs(weights).max(axis=0) / 127
    np.savez_compressed(
        folder / FILE,
        labels=np.array(model.labels),
        weights=np.round(weights / scale).astype(np.int8),
        scale=scale.astype(np.float32),
        bias=model.bias.detach().numpy(),
        trust=np.float32(trust),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trust", type=float, default=0.6, help="its share beside G; 0.6 did best on held-out lines")
    arguments = parser.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(1)
    dialogues = read()
    model = train(list(rows([d for d in dialogues if not d.held_out])))
    held_out = list(rows([d for d in dialogues if d.held_out]))
    save(model, arguments.folder, arguments.trust)
    print(f"second reader: {len(model.labels)} labels, {accuracy(model, held_out):.3f} of the held-out lines")


if __name__ == "__main__":
    main()
