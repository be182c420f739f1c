"""How much of the cluster is used: now or over time, as a whole, by node, group, project or user."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, JsonValue

from cluster.models import S, Sentence, Utilization, UtilizationItem
from cluster.units import human_size, parse_duration
from tools.base import Arguments, Context, ReadingTool, Result
from tools.kinds import Duration
from tools.show import SHOWN, percent, span
from tools.views import Chart

_USED: dict[str, Sentence] = {
    "gpu": S("GPU use"),
    "cpu": S("CPU use"),
    "memory": S("Memory use"),
    "storage": S("Storage used"),
    "power": S("Power"),
    "temperature": S("Temperature"),
}
_HELD: dict[str, Sentence] = {
    "gpu": S("Share of all GPUs held"),
    "cpu": S("Share of all cores held"),
    "memory": S("Share of all memory held"),
}
_UNITS = {"share": "%", "bytes": "B", "watts": "W", "celsius": "°C"}
NAMED = 3


class GetUtilizationArguments(Arguments):
    resource: Literal["gpu", "cpu", "memory", "storage", "power", "temperature"]
    group_by: Literal["node", "project", "user", "resource_group"] | None = None
    period: Duration | None = Field(None, description='How far back: "6h"; left out: as it is now.')


class GetUtilization(ReadingTool[GetUtilizationArguments]):
    """Show how much of a resource is used, now or on average over a period, as a whole or by who or what uses it."""

    name = "get_utilization"
    arguments = GetUtilizationArguments

    async def read(self, ctx: Context, args: GetUtilizationArguments) -> Result:
        period = parse_duration(args.period) if args.period else None
        found = await ctx.client.utilization(resource=args.resource, group_by=args.group_by, period=period)
        answer = ctx.say(_answer(ctx, found, period))
        if found.since is not None and period is not None and (ctx.now - found.since).total_seconds() < period * 0.9:
            since = span(ctx, (ctx.now - found.since).total_seconds())
            answer += " " + ctx.say(S("There are samples of the last {time} only.", time=since))
        shown = found.items[:SHOWN]
        names = [item.name for item in shown if item.name is not None]
        items = [_data(item) for item in shown]
        rows_of = {"node": "node", "project": "project", "user": "user", "resource_group": "resource_group"}
        return Result(
            status="done",
            data={"unit": found.unit, "samples": found.samples, "total": found.total, "items": items},
            view=_chart(ctx, found, shown),
            answer=answer,
            rows=names,
            rows_of=rows_of.get(found.group_by or ""),
        )


def _what(ctx: Context, found: Utilization) -> str:
    people = found.group_by in ("project", "user")
    return ctx.say((_HELD if people and found.resource in _HELD else _USED)[found.resource])


def _answer(ctx: Context, found: Utilization, period: float | None) -> Sentence:
    """Told by what was found: without samples of a period, it is how it is now."""
    what = _what(ctx, found)
    if not found.items:
        return S("{what}: nothing is measured.", what=what)
    time = span(ctx, period) if period is not None and found.since is not None else None
    if found.group_by is None:
        value, peak = _value(found, found.items[0].value), _value(found, found.items[0].peak)
        if time is None:
            return S("{what} now: {value}.", what=what, value=value)
        return S("{what} over the last {time}: {value} on average, {peak} at most.",
                 what=what, time=time, value=value, peak=peak)  # fmt: skip
    parts = [f"{_label(ctx, item)} {_value(found, item.value)}" for item in found.items[:NAMED]]
    items = ", ".join(parts) + (" …" if len(found.items) > NAMED else "")
    if time is None:
        return S("{what} now, the highest first: {items}.", what=what, items=items)
    return S("{what} over the last {time} on average, the highest first: {items}.", what=what, time=time, items=items)


def _label(ctx: Context, item: UtilizationItem) -> str:
    return item.name if item.name is not None else ctx.say(S("others"))


def _value(found: Utilization, value: float) -> str:
    if found.unit == "bytes":
        return human_size(int(value))
    return percent(value) if found.unit == "share" else f"{value:.0f} {_UNITS[found.unit]}"


def _data(item: UtilizationItem) -> JsonValue:
    data: dict[str, JsonValue] = {"name": item.name, "value": round(item.value, 3), "peak": round(item.peak, 3)}
    return data if item.busy is None else data | {"busy": round(item.busy, 3)}


def _chart(ctx: Context, found: Utilization, items: Sequence[UtilizationItem]) -> Chart:
    factor = 100 if found.unit == "share" else 1
    whole = found.group_by is None
    labels = [ctx.say(S("whole cluster")) if whole else _label(ctx, item) for item in items]
    bars = [(label, round(i.value * factor, 1), _text(ctx, found, i)) for label, i in zip(labels, items, strict=True)]
    return Chart(
        title=_what(ctx, found), unit=_UNITS[found.unit], bars=bars, maximum=100 if found.unit == "share" else None
    )


def _text(ctx: Context, found: Utilization, item: UtilizationItem) -> str:
    parts = [_value(found, item.value)]
    if item.busy is not None:
        parts.append(ctx.say(S("{share} busy", share=percent(item.busy))))
    if found.since is not None:
        parts.append(ctx.say(S("{value} at most", value=_value(found, item.peak))))
    return ", ".join(parts)
