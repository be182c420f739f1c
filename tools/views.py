"""The five views: how a result looks to people. Data, not drawing; terminal, web, MCP and `--json` render them.

Strings in a view are already in the reader's language. Numbers and names come from results only.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Tone = Literal["plain", "good", "warn", "bad", "muted"]


class _View(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Cell(_View):
    text: str
    tone: Tone = "plain"


class Table(_View):
    view: Literal["table"] = "table"
    title: str
    """Counts first: "7 running sessions"."""
    columns: list[str]
    align: list[Literal["left", "right"]] = []
    rows: list[list[Cell]]
    note: str | None = None
    """E.g. "40 more; say a number or narrow it down"."""


class Facts(_View):
    view: Literal["facts"] = "facts"
    title: str
    facts: list[tuple[str, Cell]]
    """Label and value, in reading order."""


class Text(_View):
    view: Literal["text"] = "text"
    title: str | None = None
    text: str
    code: bool = False
    """Verbatim (logs): monospaced, no wrapping, never read as markup."""
    tone: Tone = "plain"


class PlanLine(_View):
    text: str
    tone: Tone = "plain"
    owner: str | None = None
    """Whose work is touched, when it isn't the asking person's."""


class Plan(_View):
    """A plan card: what would be done, with its consequences."""

    view: Literal["plan"] = "plan"
    title: str
    """One sentence: "Start bert-tune: 2 cores, 4 GiB"."""
    risk: Literal["W", "D"]
    effects: list[PlanLine] = []
    warnings: list[str] = []
    undo: str | None = None
    """How it can be put back, or None."""
    type_word: str | None = None
    """For heavy ones: the word that has to be typed instead of a plain yes."""


class Chart(_View):
    view: Literal["chart"] = "chart"
    title: str
    unit: str
    bars: list[tuple[str, float, str]]
    """Label, value, value as text."""
    maximum: float | None = None


View = Annotated[Table | Facts | Text | Plan | Chart, Field(discriminator="view")]
