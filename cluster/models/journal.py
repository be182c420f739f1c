"""What is said of the journal itself."""

from typing import Literal

from cluster.models.base import Model
from cluster.sentence import Sentence

__all__ = ["JournalCheck", "JournalFault"]


class JournalFault(Model):
    """The first row of the journal that does not fit."""

    at: str
    """Its audit id; of rows that are missing, the first one's."""
    kind: Literal["changed", "missing", "unchained", "undone_by", "end"]
    message: Sentence


class JournalCheck(Model):
    """GET /v1/audit/verify: whether the journal is what was written."""

    whole: bool
    rows: int
    """How many were looked at."""
    unchained: int
    """How many of them are from before there was a chain, so that nothing is known of them."""
    oldest: str | None = None
    newest: str | None = None
    hash: str | None = None
    """Of the newest row. Kept elsewhere, it proves later that nothing up to there was changed."""
    fault: JournalFault | None = None
    not_known: list[Sentence] = []
    """What this check can't tell."""
