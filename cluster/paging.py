"""Sorting a list and cutting a page off it."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

from cluster.models import Page

T = TypeVar("T")
Order = Literal["asc", "desc"]


def cut(found: list[T], key: Callable[[T], Any], order: Order | None, sort_by: str, limit: int) -> Page[T]:
    """Sorted (amounts largest first unless said otherwise, names and times upwards) and cut."""
    upwards = sort_by in ("name", "created")
    found = sorted(found, key=key, reverse=order == "desc" if order else not upwards)
    return Page(items=found[:limit], total=len(found))
