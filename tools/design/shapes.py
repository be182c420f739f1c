"""The shape of a dense transformer of a given size, read off a family that everybody knows."""

from bisect import bisect_left
from dataclasses import dataclass
from math import log


@dataclass(frozen=True)
class Shape:
    """A decoder with grouped-query attention; `params` counts all weights."""

    params: float
    layers: int
    hidden: int
    kv_width: int
    """Width of the keys of one layer: KV heads times the head's width."""
    vocabulary: int = 128_256


FAMILY = (
    Shape(0.5e9, 14, 1536, 512),
    Shape(1.24e9, 16, 2048, 512),
    Shape(3.21e9, 28, 3072, 1024),
    Shape(8.03e9, 32, 4096, 1024),
    Shape(70.6e9, 80, 8192, 1024),
    Shape(405e9, 126, 16384, 1024),
)
"""Llama 3.1 and 3.2 (model cards and configurations); the smallest is drawn on from 1B and 3B."""


def shape_of(params: float) -> Shape:
    """The shape for `params` weights: the family's where it has one (within 2 %), else between its neighbours.

    Width and depth grow as powers of the size between two members, and beyond the ends as the cube root.
    """
    member = next((s for s in FAMILY if abs(s.params / params - 1) < 0.02), None)
    if member:
        return Shape(params, member.layers, member.hidden, member.kv_width)
    place = bisect_left([s.params for s in FAMILY], params)
    if place in (0, len(FAMILY)):
        return _beyond(FAMILY[0] if place == 0 else FAMILY[-1], params)
    return _between(FAMILY[place - 1], FAMILY[place], params)


def _beyond(end: Shape, params: float) -> Shape:
    factor = float((params / end.params) ** (1 / 3))
    return Shape(params, max(2, round(end.layers * factor)), _even(end.hidden * factor), end.kv_width)


def _between(below: Shape, above: Shape, params: float) -> Shape:
    share = log(params / below.params) / log(above.params / below.params)

    def mixed(low: int, high: int) -> float:
        return float(low * (high / low) ** share)

    return Shape(
        params,
        round(mixed(below.layers, above.layers)),
        _even(mixed(below.hidden, above.hidden)),
        _even(mixed(below.kv_width, above.kv_width)),
    )


def _even(width: float) -> int:
    """Rounded to a multiple of 128, as the hardware likes it."""
    return max(128, round(width / 128) * 128)
