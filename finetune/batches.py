"""Training examples as padded batches of token ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random

import torch

from finetune.data import Example, Generator
from helmsman.prompts import PSEUDO_CALLS
from helmsman.prompts.codec import Codec, control_tokens
from helmsman.prompts.dialect import END_TURN, PAD, START_CALL, Piece, answer, prompt
from tools.catalogue import catalogue

MAX_TOKENS = 384
_CHUNK = 512
_VALUE_WEIGHT = 2.0
_TOOL_WEIGHT = 6.0
_TURN_WEIGHT = 2.0
_BLOT = 1 / 12


@dataclass(frozen=True)
class Encoded:
    """One example: its token ids, where its answer begins, and how much each answer token counts."""

    ids: list[int]
    start: int
    weights: list[float]


@dataclass(frozen=True)
class Batch:
    """`ids` (rows, longest), right-padded with 0; the hidden states at the flat positions `at` must say `targets`."""

    ids: torch.Tensor
    at: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor


class Encoder:
    """Encodes examples. Structure is learned at once, the choice of a tool is the hard part: so it weighs most."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self._tools = {codec.id_of(name) for name in (*catalogue(), *PSEUDO_CALLS)}
        self._last_control = max(codec.id_of(token) for token in control_tokens())
        self._blank = codec.id_of(PAD)
        self._turn = {codec.id_of(START_CALL), codec.id_of(END_TURN)}

    def __call__(self, example: Example, rng: Random | None = None) -> Encoded:
        """With `rng`, one word token in twelve of the prompt is blotted out, but none that the answer copies."""
        head = self.codec.encode(prompt(example.turns))
        ids, weights = list(head), []
        for piece in answer(example.answer):
            encoded = self.codec.encode([piece])
            ids += encoded
            weights += [self._weight(piece, i) for i in encoded]
        if rng is not None:
            self._blot(ids, len(head), rng)
        return Encoded(ids, len(head), weights)

    def _blot(self, ids: list[int], start: int, rng: Random) -> None:
        copied = set(ids[start:])
        for i in range(start):
            if ids[i] > self._last_control and ids[i] not in copied and rng.random() < _BLOT:
                ids[i] = self._blank

    def _weight(self, piece: Piece, token: int) -> float:
        if not piece.control:
            return _VALUE_WEIGHT
        if token in self._tools:
            return _TOOL_WEIGHT
        return _TURN_WEIGHT if token in self._turn else 1.0


def chunk(generator: Generator, encoder: Encoder, seed: int, number: int, tokens: int) -> list[Batch]:
    """The batches of one chunk of examples, each of about `tokens` tokens with padding, in random order.

    A chunk is a matter of its seed and number alone, so that a run that was broken off goes on with fresh ones.
    """
    rng = Random(f"{seed}:{number}")
    examples = [e for e in (encoder(generator.draw(rng), rng) for _ in range(_CHUNK)) if len(e.ids) <= MAX_TOKENS]
    batches = list(batched(examples, tokens))
    rng.shuffle(batches)
    return batches


def batched(examples: Iterable[Encoded], tokens: int) -> Iterator[Batch]:
    """Batches of examples of about the same length."""
    group: list[Encoded] = []
    for example in sorted(examples, key=lambda e: len(e.ids)):
        if group and len(example.ids) * (len(group) + 1) > tokens:
            yield _batch(group)
            group = []
        group.append(example)
    if group:
        yield _batch(group)


def _batch(group: list[Encoded]) -> Batch:
    width = max(len(e.ids) for e in group)
    ids = torch.zeros(len(group), width, dtype=torch.long)
    at: list[int] = []
    targets: list[int] = []
    for row, e in enumerate(group):
        ids[row, : len(e.ids)] = torch.tensor(e.ids)
        at += range(row * width + e.start - 1, row * width + len(e.ids) - 1)
        targets += e.ids[e.start :]
    weights = torch.tensor([w for e in group for w in e.weights])
    return Batch(ids, torch.tensor(at), torch.tensor(targets), weights)
