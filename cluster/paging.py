"""Sorting a list and cutting a page off it."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, AwareDatetime

from cluster.models import Page

T = TypeVar("T")
Order = Literal["asc", "desc"]


def _in_utc(at: datetime) -> datetime:
    """The first and the last year have moments that UTC has no name for."""
    if not 1970 <= at.year <= 9000:
        raise ValueError("the year must be between 1970 and 9000")
    return at.astimezone(UTC)


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A time in a query, with its zone."""


def cut(found: list[T], key: Callable[[T], Any], order: Order | None, sort_by: str, limit: int) -> Page[T]:
    """Sorted (amounts largest first unless said otherwise, names and times upwards) and cut."""
    upwards = sort_by in ("name", "created")
    found = sorted(found, key=key, reverse=order == "desc" if order else not upwards)
    return Page(items=found[:limit], total=len(found))
