"""Small pieces of views: amounts, spans of time, states, in the reader's language."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from cluster import units
from cluster.models import NodeStatus, Resources, S, Sentence, Session, SessionState
from cluster.sentence import Param
from cluster.units import human_size
from tools.base import Arguments, Context
from tools.linking.numbers import number
from tools.views import Cell, Facts, Table, Tone

_ISO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)")
SHOWN = 20
"""Rows of a table, unless more (up to 100) were asked for."""

STATES: dict[SessionState, Sentence] = {
    SessionState.HELD: S("held"),
    SessionState.PENDING: S("pending"),
    SessionState.SCHEDULED: S("scheduled"),
    SessionState.PREPARING: S("preparing"),
    SessionState.RUNNING: S("running"),
    SessionState.TERMINATING: S("terminating"),
    SessionState.TERMINATED: S("terminated"),
    SessionState.ERROR: S("error"),
    SessionState.CANCELLED: S("cancelled"),
}
STATUSES: dict[NodeStatus, Sentence] = {
    NodeStatus.ALIVE: S("alive"),
    NodeStatus.CORDONED: S("cordoned"),
    NodeStatus.DRAINING: S("draining"),
    NodeStatus.LOST: S("lost"),
}
WAITING = (SessionState.HELD, SessionState.PENDING)
_TONES: dict[str, Tone] = {
    "running": "good", "alive": "good", "held": "warn", "pending": "warn", "cordoned": "warn", "draining": "warn",
    "error": "bad", "lost": "bad", "terminated": "muted", "cancelled": "muted",
}  # fmt: skip


def query(args: Arguments) -> dict[str, str | int | float | bool | None]:
    """Linked arguments as a query of the API, whose parameters have the same names; enough rows to count by."""
    given = {key: value for key, value in args.model_dump().items() if value is not None}
    return {"limit": SHOWN * 10} | given


def percent(share: float | None) -> str:
    """0.034 as "3 %"; a dash where nothing is known."""
    return "–" if share is None else f"{share * 100:.0f} %"


def plural(count: float, one: Sentence, many: Sentence) -> Sentence:
    """The form that goes with `count` in English."""
    return one if count == 1 else many


def span(ctx: Context, seconds: float) -> str:
    """A length of time in at most two units: "2 h 5 min"."""
    minutes = int(seconds // 60)
    days, hours = divmod(minutes // 60, 24)
    if seconds < 60:
        return ctx.say(S("{seconds} s", seconds=max(0, int(seconds))))
    if days:
        return ctx.say(S("{days} d {hours} h", days=days, hours=hours) if hours else S("{days} d", days=days))
    if not hours:
        return ctx.say(S("{minutes} min", minutes=minutes))
    rest = minutes % 60
    return ctx.say(S("{hours} h {minutes} min", hours=hours, minutes=rest) if rest else S("{hours} h", hours=hours))


def ago(ctx: Context, when: datetime | None) -> str:
    """How long ago, as a span; a dash for never."""
    return span(ctx, (ctx.now - when).total_seconds()) if when else "–"


def moment(ctx: Context, when: datetime | None) -> str:
    """A time as people there read it: the clock alone for today."""
    if when is None:
        return "–"
    local = when.astimezone(ctx.now.tzinfo)
    return local.strftime("%H:%M" if local.date() == ctx.now.date() else "%Y-%m-%d %H:%M")


def told(ctx: Context, sentence: Sentence) -> str:
    """A sentence of the cluster in the reader's language, its times as people there read them."""
    return ctx.say(sentence.model_copy(update={"params": {k: _local(ctx, v) for k, v in sentence.params.items()}}))


def _local(ctx: Context, value: Param) -> Param:
    if isinstance(value, str) and _ISO_TIME.fullmatch(value):
        return moment(ctx, datetime.fromisoformat(value))
    return value


def amounts(ctx: Context, held: Resources) -> str:
    """ "4 GPUs, 32 cores, 256 GiB", leaving out what is none."""
    parts: list[str] = []
    if held.gpu:
        parts.append(ctx.say(gpus(held.gpu)))
    if held.cpu:
        count = number(held.cpu)
        parts.append(ctx.say(plural(held.cpu, S("{count} core", count=count), S("{count} cores", count=count))))
    if held.memory:
        parts.append(human_size(held.memory))
    return ", ".join(parts) or "–"


def gpus(count: float) -> Sentence:
    """ "1 GPU", "4 GPUs"."""
    text = number(count)
    return plural(count, S("{count} GPU", count=text), S("{count} GPUs", count=text))


def state_word(ctx: Context, state: SessionState) -> str:
    return ctx.say(STATES[state])


def state_cell(ctx: Context, session: Session) -> Cell:
    """The state with its tone; an idle session is said to be so."""
    if session.idle:
        return Cell(text=ctx.say(S("running, idle")), tone="warn")
    return Cell(text=state_word(ctx, session.state), tone=_TONES.get(session.state.value, "plain"))


def status_cell(ctx: Context, status: NodeStatus) -> Cell:
    return Cell(text=ctx.say(STATUSES[status]), tone=_TONES.get(status.value, "plain"))


def counted(ctx: Context, states: Iterable[SessionState]) -> str:
    """ "7 running, 3 pending", in the order of a session's life."""
    counts = Counter(states)
    return ", ".join(tallied(ctx, counts[state], STATES[state]) for state in SessionState if counts[state])


def tallied(ctx: Context, count: int, word: Sentence) -> str:
    """ "7 running"."""
    return ctx.say(S("{count} {state}", count=count, state=ctx.say(word)))


def unique(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """For (id, name) pairs: the name where only one has it, else the id."""
    times = Counter(name for _, name in pairs)
    return [name if times[name] == 1 else id_ for id_, name in pairs]


def table(
    ctx: Context,
    title: str,
    columns: Sequence[Sentence],
    rows: list[list[Cell | str]],
    *,
    total: int,
    right: Sequence[int] = (),
) -> Table:
    """A table of the first rows of `total`; `right` are the columns with numbers."""
    left_out = total - len(rows)
    note = S("{count} more; narrow it down or ask for more rows.", count=left_out)
    return Table(
        title=title,
        columns=[ctx.say(c) for c in columns],
        align=["right" if i in right else "left" for i in range(len(columns))],
        rows=[[c if isinstance(c, Cell) else Cell(text=c) for c in row] for row in rows],
        note=ctx.say(note) if left_out > 0 else None,
    )


def facts(ctx: Context, title: str, lines: Sequence[tuple[Sentence, Cell | str | None]]) -> Facts:
    """Labels and values; a line whose value is None is left out."""
    cells = [(ctx.say(label), v if isinstance(v, Cell) else Cell(text=v)) for label, v in lines if v is not None]
    return Facts(title=title, facts=cells)


def listed(names: Sequence[str]) -> str:
    """The first eight, and a mark when there are more."""
    return units.listed(names, 8)


def nodes_of(session: Session) -> str:
    """The nodes a session holds something on, three at most."""
    nodes = list(dict.fromkeys(a.node for a in session.allocations))
    return ", ".join(nodes[:3]) + ("…" if len(nodes) > 3 else "") if nodes else "–"
