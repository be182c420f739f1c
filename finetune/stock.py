"""The generator's word stock, `datasets/stock.yaml`, typed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

_FILE = Path(__file__).parent.parent / "datasets" / "stock.yaml"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NameStock(_Strict):
    """Of what made-up names are made."""

    onsets: list[str]
    nuclei: list[str]
    codas: list[str]
    surnames: str
    given: str
    syllables: str
    tags: list[str]
    sizes: list[str]


class Manners(_Strict):
    """How people decorate requests, by language (`en`, `ko`); `swaps` are pairs: a word and another for it."""

    before: dict[str, list[str]]
    after: dict[str, list[str]]
    swaps: dict[str, list[tuple[str, str]]]
    joints: dict[str, list[str]]


class Stock(_Strict):
    """All of it."""

    names: NameStock
    shapes: dict[str, list[str]]
    manners: Manners


@cache
def stock() -> Stock:
    """The stock, read once."""
    return Stock.model_validate(yaml.safe_load(_FILE.read_text(encoding="utf-8")))
