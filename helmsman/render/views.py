"""The five views as terminal text. Numbers are never cut: a table that doesn't fit loses columns, or becomes blocks."""

from typing import assert_never

from rich.cells import cell_len
from rich.console import Group, JustifyMethod, RenderableType
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
FEWEST = 4
"""Columns that a table keeps where it is too wide; it leaves out those on the right first."""


def render(view: View, look: Look, limit: int | None = None) -> str:
    """`view` as text that ends with a newline, in at most `limit` lines and one that says what was left out.

    Tables and facts keep their beginning, logs their end. Without a `limit` a table that is too wide for its terminal
    becomes blocks of lines; with one it leaves columns out, and says so.
    """
    text = _drawn(view, look, whole=limit is None)
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


def _drawn(view: View, look: Look, whole: bool) -> str:
    match view:
        case Table():
            return look.draw(*_table(view, look, whole))
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


def _table(view: Table, look: Look, whole: bool) -> list[RenderableType]:
    parts: list[RenderableType] = [_title(view.title)]
    shown, dropped = view, list[str]()
    fitted = fit(view, look.width)
    while fitted is None and not whole and len(shown.columns) > FEWEST:
        dropped.insert(0, one_line(shown.columns[-1]))
        shown = _without_last(shown)
        fitted = fit(shown, look.width)
    if view.rows:
        parts.append(_grid(shown, *fitted) if fitted else _blocks(view, look))
    if view.note:
        parts.append(Words(one_line(view.note), style="muted"))
    if fitted and dropped:
        note = S("too narrow for: {columns}; /show prints all of it", columns=", ".join(dropped))
        parts.append(Words(look.say(note), style="muted"))
    return parts


def _without_last(view: Table) -> Table:
    """The table without its last column: tools put what matters most first."""
    rows = [row[: len(view.columns) - 1] for row in view.rows]
    return view.model_copy(update={"columns": view.columns[:-1], "rows": rows})


def fit(view: Table, width: int) -> tuple[list[int], int] | None:
    """A width for each column, and the gap between them, so that the table fits `width` cells.

    Given up in this order: headings on one line, half of the gap, the ends of texts. None when that would take cutting
    a number, or a text below `NARROWEST`.
    """
    columns = range(len(view.columns))
    snug = [
        max(_widest(view, i), *(cell_len(word) for word in one_line(view.columns[i]).split() or [""])) for i in columns
    ]
    natural = [max(snug[i], cell_len(one_line(view.columns[i]))) for i in columns]
    lowest = [min(snug[i], NARROWEST) if _align(view, i) == "left" else snug[i] for i in columns]
    for wanted, least, gap in ((natural, snug, GAP), (snug, snug, GAP // 2), (snug, lowest, GAP // 2)):
        room = width - gap * (len(columns) - 1)
        if sum(least) <= room:
            return _shrunk(wanted, least, room), gap
    return None


def _shrunk(wanted: list[int], least: list[int], room: int) -> list[int]:
    """`wanted`, the widest made narrower step by step until all fit `room`; none below `least`."""
    widths = list(wanted)
    while sum(widths) > room:
        index = max(range(len(widths)), key=lambda i: widths[i] if widths[i] > least[i] else -1)
        widths[index] -= 1
    return widths


def _widest(view: Table, index: int) -> int:
    return max((cell_len(one_line(row[index].text)) for row in view.rows if index < len(row)), default=0)


def _align(view: Table, index: int) -> str:
    return view.align[index] if index < len(view.align) else "left"


def _grid(view: Table, widths: list[int], gap: int) -> Grid:
    grid = Grid(box=None, padding=(0, gap, 0, 0), pad_edge=False, show_edge=False)
    for index, (heading, width) in enumerate(zip(view.columns, widths, strict=True)):
        justify: JustifyMethod = "right" if _align(view, index) == "right" else "left"
        header = Words(_folded(one_line(heading), width), style="heading")
        grid.add_column(header, justify=justify, vertical="bottom", width=width, no_wrap=True, overflow="ellipsis")
    for row in view.rows:
        grid.add_row(*(_cell(each) for each in row))
    return grid


def _folded(heading: str, width: int) -> str:
    """The heading on as many lines as it takes, broken between words."""
    lines = [""]
    for word in heading.split():
        joined = f"{lines[-1]} {word}".strip()
        if cell_len(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return "\n".join(line for line in lines if line)


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
