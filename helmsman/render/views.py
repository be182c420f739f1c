"""The five views as terminal text. Numbers are never cut: where a table doesn't fit, its rows become blocks."""

from typing import assert_never

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text as Words

from cluster.sentence import S
from helmsman.render.clean import clean, one_line
from helmsman.render.look import Look
from helmsman.render.plan import card
from tools.views import Cell, Chart, Facts, Plan, Table, Text, View

GAP = 2
"""Cells between two columns."""
NARROWEST = 8
"""A text column isn't cut below this."""


def render(view: View, look: Look, limit: int | None = None) -> str:
    """`view` as text that ends with a newline, in at most `limit` lines and one that says what was left out.

    Tables and facts keep their beginning, logs their end.
    """
    text = _whole(view, look)
    if limit is None:
        return text
    return bounded(text, look, limit, keep_end=isinstance(view, Text) and view.code)


def bounded(text: str, look: Look, limit: int, keep_end: bool = False) -> str:
    """At most `limit` lines of `text`, and a line that says how many more there are and how to see them."""
    lines = text.splitlines()
    cut = len(lines) - limit
    if cut <= 1:
        return text
    if keep_end:
        note = look.say(S("… {count} earlier lines; /show prints all of it", count=cut))
        kept = [lines[0], _dim(note, look), *lines[cut + 1 :]]
    else:
        note = look.say(S("… {count} more lines; /show prints all of it", count=cut))
        kept = [*lines[:limit], _dim(note, look)]
    return "\n".join(kept) + "\n"


def _dim(text: str, look: Look) -> str:
    return look.draw(Words(text, style="muted")).rstrip("\n")


def _whole(view: View, look: Look) -> str:
    match view:
        case Table():
            return look.draw(*_table(view, look))
        case Facts():
            return look.draw(*_facts(view, look))
        case Text():
            return _text(view, look)
        case Plan():
            return card([view], look)
        case Chart():
            return look.draw(*_chart(view, look))
        case _:
            assert_never(view)


def _title(text: str) -> Words:
    return Words(one_line(text), style="title")


# ── tables ───────────────────────────────────────────────────────────────────────────────────────


def _table(view: Table, look: Look) -> list[RenderableType]:
    parts: list[RenderableType] = [_title(view.title)]
    if view.rows:
        widths = fit(view, look.width)
        parts.append(_grid(view, widths) if widths else _blocks(view, look))
    if view.note:
        parts.append(Words(one_line(view.note), style="muted"))
    return parts


def fit(view: Table, width: int) -> list[int] | None:
    """A width for each column so that the table fits `width` cells, text columns cut as little as can be.

    None when that would take cutting a number, or a text column below `NARROWEST`.
    """
    widths = [_natural(view, index) for index in range(len(view.columns))]
    room = width - GAP * (len(widths) - 1)
    lowest = [min(each, NARROWEST) if _align(view, index) == "left" else each for index, each in enumerate(widths)]
    if sum(lowest) > room:
        return None
    while sum(widths) > room:
        index = max(range(len(widths)), key=lambda i: widths[i] if widths[i] > lowest[i] else -1)
        widths[index] -= 1
    return widths


def _natural(view: Table, index: int) -> int:
    cells = [one_line(row[index].text) for row in view.rows if index < len(row)]
    return max(cell_len(text) for text in [one_line(view.columns[index]), *cells])


def _align(view: Table, index: int) -> str:
    return view.align[index] if index < len(view.align) else "left"


def _grid(view: Table, widths: list[int]) -> Grid:
    grid = Grid(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="heading", show_edge=False)
    for index, (heading, width) in enumerate(zip(view.columns, widths, strict=True)):
        justify = "right" if _align(view, index) == "right" else "left"
        header = Words(one_line(heading), style="heading")
        grid.add_column(header, justify=justify, width=width, no_wrap=True, overflow="ellipsis")  # type: ignore[arg-type]
    for row in view.rows:
        grid.add_row(*(_cell(each) for each in row))
    return grid


def _cell(cell: Cell) -> Words:
    return Words(one_line(cell.text), style=cell.tone)


def _blocks(view: Table, look: Look) -> RenderableType:
    """Each row as a block of "heading value" lines, for terminals too narrow for the table."""
    blocks: list[RenderableType] = []
    for row in view.rows:
        pairs = [(heading, cell) for heading, cell in zip(view.columns, row, strict=False) if cell.text]
        blocks.append(_pairs(pairs, look))
    return Group(*(part for block in blocks for part in (block, Words("")))) if blocks else Words("")


# ── facts, text, chart ───────────────────────────────────────────────────────────────────────────


def _facts(view: Facts, look: Look) -> list[RenderableType]:
    return [_title(view.title), _pairs(view.facts, look)]


def _pairs(pairs: list[tuple[str, Cell]], look: Look) -> Grid:
    """Labels in one column, values wrapped in the other."""
    grid = Grid.grid(padding=(0, GAP, 0, 0))
    widest = max((cell_len(one_line(label)) for label, _ in pairs), default=0)
    grid.add_column(width=min(widest, look.width // 2), style="heading", overflow="fold")
    grid.add_column(overflow="fold")
    for label, cell in pairs:
        grid.add_row(Words(one_line(label), style="heading"), Words(clean(cell.text), style=cell.tone))
    return Padding.indent(grid, GAP)  # type: ignore[return-value]


def _text(view: Text, look: Look) -> str:
    title = look.draw(_title(view.title)) if view.title else ""
    body = clean(view.text).rstrip("\n")
    if not body:
        return title or "\n"
    if view.code:
        return title + _verbatim(body, view, look)
    return title + look.draw(Words(body, style=view.tone))


def _verbatim(body: str, view: Text, look: Look) -> str:
    """Line by line as it is: not wrapped, so that it can be copied; the terminal folds what is too long."""
    if view.tone == "plain" or not look.color:
        return body + "\n"
    wide = Look(width=max(len(line) for line in body.splitlines()) * 2 + 1, color=True)
    return wide.draw(Words(body, style=view.tone, no_wrap=True, overflow="ignore"))


def _chart(view: Chart, look: Look) -> list[RenderableType]:
    title = f"{one_line(view.title)} ({one_line(view.unit)})" if view.unit else one_line(view.title)
    labels = max((cell_len(one_line(label)) for label, _, _ in view.bars), default=0)
    values = max((cell_len(one_line(text)) for _, _, text in view.bars), default=0)
    labels = min(labels, look.width // 3)
    room = max(4, look.width - labels - values - 2 * GAP)
    top = view.maximum or max((value for _, value, _ in view.bars), default=0) or 1
    grid = Grid.grid(padding=(0, GAP, 0, 0))
    grid.add_column(width=labels, no_wrap=True, overflow="ellipsis")
    grid.add_column(width=values, no_wrap=True, justify="right")
    grid.add_column(width=room, no_wrap=True)
    for label, value, text in view.bars:
        grid.add_row(Words(one_line(label)), Words(one_line(text)), Words(bar(value / top, room, look), style="accent"))
    return [_title(title), grid]


def bar(share: float, width: int, look: Look) -> str:
    """A bar of `share` (cut to 0..1) of `width` cells, in eighths of a cell where the terminal has them."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    if not look.unicode:
        return "#" * round(eighths / 8)
    rest = eighths % 8
    return "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[rest - 1] if rest else "")
