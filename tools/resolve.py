"""From arguments as a model gives them (words as people say them) to typed ones, or to a question, or to a refusal.

What is linked exists. Linking adds no argument that was not given. A guess is never acted on where work could be lost.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NoReturn

from pydantic import ValidationError

from cluster.errors import ClusterError, NotFound
from cluster.models import S, Sentence, SessionState
from tools.base import Arguments, Context, Result, Risk, Tool
from tools.catalogue import catalogue
from tools.kinds import Kind, Noun, Shape, shape_of
from tools.linking.amounts import read_duration, read_size
from tools.linking.enums import read_bool, read_choice
from tools.linking.names import Match, find, fold, is_oneself, position
from tools.linking.numbers import number, read_number
from tools.linking.quantities import Measure, read_quantity
from tools.linking.times import read_since, read_time
from tools.outcome import failure, unfit
from tools.questions import choices, unknown, which

_LIVE = {
    SessionState.HELD,
    SessionState.PENDING,
    SessionState.SCHEDULED,
    SessionState.PREPARING,
    SessionState.RUNNING,
    SessionState.TERMINATING,
}
_CHOICES = 9


@dataclass(frozen=True)
class Ready:
    """Everything is there: the call can be previewed or run."""

    args: Arguments


@dataclass(frozen=True)
class Question:
    """Something is missing or fits several things.

    `text` is `sentence` in the reader's language; each of `choices` is a name that links.
    """

    sentence: Sentence
    text: str
    argument: str
    choices: list[str]


@dataclass(frozen=True)
class Unfit:
    """The call can't be made as asked; the result says why and what exists."""

    result: Result


Linked = Ready | Question | Unfit


class _Stop(Exception):
    """Linking ends here, with a question or a refusal."""

    def __init__(self, linked: Question | Unfit) -> None:
        super().__init__()
        self.linked = linked


async def link(tool: Tool[Any], raw: Mapping[str, Any], ctx: Context) -> Linked:
    """The typed arguments of `tool` that `raw` means. Never raises for what a model or a person may write."""
    try:
        return await _Linking(tool, ctx).link(raw)
    except _Stop as stop:
        return stop.linked
    except ClusterError as error:
        return Unfit(failure(ctx, error))


def ask(argument: str, ctx: Context, allowed: tuple[str, ...] = ()) -> Question:
    """The question for an argument that is missing, with what is allowed or exists as choices."""
    sentence = which(argument, allowed)
    return Question(sentence, ctx.say(sentence), argument, [*allowed] or choices(argument, ctx.names))


class _Linking:
    """One call being linked."""

    def __init__(self, tool: Tool[Any], ctx: Context) -> None:
        self._tool = tool
        self._ctx = ctx
        self._names = ctx.names
        self._fresh = False

    async def link(self, raw: Mapping[str, Any]) -> Ready:
        fields = self._tool.arguments.model_fields
        given = {key: value for key, value in raw.items() if value not in (None, "", [], {})}
        if strange := [key for key in given if key not in fields]:
            self._refuse(S("{tool} has no argument {argument}.", tool=self._tool.name, argument=strange[0]))
        values = {key: await self._value(key, shape_of(fields[key]), given[key]) for key in fields if key in given}
        self._nothing_missing([key for key, field in fields.items() if field.is_required() and key not in values])
        if wanted := self._tool.wants(self._ctx, values):
            raise _Stop(ask(wanted, self._ctx))
        return Ready(self._validated(values))

    def _nothing_missing(self, missing: list[str]) -> None:
        if missing:
            allowed = shape_of(self._tool.arguments.model_fields[missing[0]]).choices
            raise _Stop(ask(missing[0], self._ctx, allowed))

    def _validated(self, values: dict[str, Any]) -> Arguments:
        try:
            args: Arguments = self._tool.arguments.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or self._tool.name
            why = first["msg"].removeprefix("Value error, ")
            self._refuse(S("{argument} can't be used: {why}.", argument=where, why=why))
        return args

    def _refuse(self, sentence: Sentence) -> NoReturn:
        raise _Stop(Unfit(unfit(self._ctx, "invalid", sentence)))

    # ── values ───────────────────────────────────────────────────────────────────────────────────

    async def _value(self, argument: str, shape: Shape, raw: Any) -> Any:
        if shape.container == "map":
            return self._map(argument, raw)
        if shape.container == "list":
            items = [await self._one(argument, shape, item) for item in _items(raw)]
            return list(dict.fromkeys(items))
        if isinstance(raw, list) and len(raw) == 1:
            raw = raw[0]
        return await self._one(argument, shape, raw)

    async def _one(self, argument: str, shape: Shape, raw: Any) -> Any:
        said = raw if isinstance(raw, str) else _plain(raw)
        if shape.choices:
            return self._choice(argument, said, shape.choices)
        if shape.base is bool:
            return self._bool(argument, said)
        if shape.base in (int, float):
            return self._number(argument, shape.base, said)
        return await self._worded(argument, shape.kind or Kind("text"), said)

    async def _worded(self, argument: str, kind: Kind, said: str) -> str:
        match kind.kind:
            case "name":
                return await self._name(argument, kind.of or "target", said)
            case "size":
                return self._size(argument, said)
            case "duration":
                return self._duration(argument, said, kind.bare)
            case "time":
                return self._time(argument, said)
            case "since":
                return self._known(read_since(said, self._ctx.now), argument, said, S("24h or yesterday 18:00"))
            case "quantity":
                return self._quantity(argument, kind.measure or "count", said)
            case "text":
                return said.strip()

    def _known(self, value: str | None, argument: str, said: str, example: Sentence) -> str:
        if value is None:
            self._refuse(
                S(
                    "{said} is not understood as {argument}; say it like {example}.",
                    said=said[:80],
                    argument=argument,
                    example=self._ctx.say(example),
                )
            )
        return value

    def _choice(self, argument: str, said: str, allowed: tuple[str, ...]) -> str:
        found = read_choice(argument, said, allowed)
        if found is None:
            words = ", ".join(allowed)
            self._refuse(
                S("{argument} can't be {said}; it is one of: {words}.", argument=argument, said=said[:80], words=words)
            )
        return found

    def _bool(self, argument: str, said: str) -> bool:
        found = read_bool(said)
        if found is None:
            self._refuse(S("{argument} is yes or no, not {said}.", argument=argument, said=said[:80]))
        return found

    def _number(self, argument: str, base: type, said: str) -> int | float:
        found = read_number(said)
        if found is None:
            self._refuse(S("{argument} is a number, not {said}.", argument=argument, said=said[:80]))
        if base is float:
            return int(found) if found.is_integer() else found
        if not found.is_integer():
            self._refuse(S("{argument} is a whole number, not {said}.", argument=argument, said=said[:80]))
        return int(found)

    def _size(self, argument: str, said: str) -> str:
        if re.fullmatch(r"[\d.,]+", said.strip()):
            self._refuse(S("{said} has no unit as {argument}; say it like 64g or 512m.", said=said, argument=argument))
        return self._known(read_size(said), argument, said, S("64g, 512m or 2t"))

    def _duration(self, argument: str, said: str, bare: str | None) -> str:
        return self._known(read_duration(said, bare), argument, said, S("90m, 12h or 3d"))

    def _quantity(self, argument: str, measure: Measure, said: str) -> str:
        examples = {"count": S("70b or 1.5t"), "money": S("$200k or 500000 EUR"), "power": S("60kW or 1MW")}
        return self._known(read_quantity(said, measure), argument, said, examples[measure])

    def _time(self, argument: str, said: str) -> str:
        when = self._known(
            read_time(said, self._ctx.now), argument, said, S("tomorrow 09:00, +30m or 2026-03-02T09:00")
        )
        if datetime.fromisoformat(when) < self._ctx.now - timedelta(minutes=1):
            self._refuse(
                S(
                    "{said} is past already ({time}); say a later time.",
                    said=said[:80],
                    time=when[:16].replace("T", " "),
                )
            )
        return when

    def _map(self, argument: str, raw: Any) -> dict[str, str]:
        if isinstance(raw, Mapping):
            return {str(key): _plain(value) for key, value in raw.items()}
        pairs = [str(item).partition("=") for item in (raw if isinstance(raw, list) else str(raw).split())]
        if any(not key or not mark for key, mark, _ in pairs):
            self._refuse(S("{argument} is written KEY=VALUE, not {said}.", argument=argument, said=str(raw)[:80]))
        return {key.strip(): value.strip() for key, _, value in pairs}

    # ── names ────────────────────────────────────────────────────────────────────────────────────

    async def _name(self, argument: str, noun: Noun, said: str) -> str:
        if noun == "user" and is_oneself(said):
            return self._ctx.user
        if self._unheard(noun, said):
            self._names, self._fresh = await self._ctx.client.names(), True
        if noun in ("session", "live_session"):
            return await self._session(argument, noun, said)
        known = self._all(noun)
        if not known and noun in ("image", "gpu_model"):
            return said.strip()
        found = find(said, known)
        if noun == "trashed_folder" and not found.names:
            found = find(said, self._names.folders)  # not in the trash: the cluster says so
        if noun == "node" and not _certain(found):
            found = await self._by_gpu_model(said) or found
        if noun == "gpu_model" and len(found.names) > 1:
            return said.strip()
        return self._settled(argument, noun, said, found)

    def _unheard(self, noun: Noun, said: str) -> bool:
        """Whether the name may be newer than the names at hand."""
        known = [*self._names.sessions, *self._names.sessions.values()] if "session" in noun else self._all(noun)
        return not self._fresh and fold(said) not in map(fold, known) and not _certain(find(said, known))

    def _all(self, noun: Noun) -> list[str]:
        names = self._names
        plain: dict[str, list[str]] = {
            "node": names.nodes, "user": names.users, "project": names.projects, "folder": names.folders,
            "trashed_folder": names.trashed_folders, "image": names.images, "resource_group": names.resource_groups,
            "gpu_model": names.gpu_models, "model": names.models, "endpoint": names.endpoints,
            "pipeline": names.pipelines, "run": [*names.runs, *names.pipelines],
            "tool": list(catalogue()),
        }  # fmt: skip
        if noun != "target":
            return plain[noun]
        sessions = [*names.sessions, *names.sessions.values()]
        return [*sessions, *names.nodes, *names.folders, *names.endpoints, *names.users, *names.resource_groups]

    async def _by_gpu_model(self, said: str) -> Match | None:
        """ "the second a100 box" where nodes are not named for their GPUs: the second of those that have them."""
        for word in said.split():
            models = find(word, self._names.gpu_models)
            if not _certain(models) or not any(c.isdigit() for c in word):
                continue
            pages = [await self._ctx.client.nodes(gpu_model=m, limit=1000) for m in models.names]
            nodes = sorted(n.name for page in pages for n in page.items if n.gpu_model in models.names)
            place = position(said.replace(word, ""))
            if place is None:
                return Match(tuple(nodes)) if nodes else None
            return Match((nodes[place - 1],), sure=False) if 1 <= place <= len(nodes) else None
        return None

    def _settled(self, argument: str, noun: Noun, said: str, found: Match) -> str:
        """The one name found; else a question or a refusal."""
        if not found.names:
            self._no_such(noun, said, found.near)
        if len(found.names) > 1:
            self._which_of(argument, said, found.names)
        if not found.sure and self._tool.risk is Risk.D:
            sentence = S("Do you mean {name}?", name=found.names[0])
            raise _Stop(Question(sentence, self._ctx.say(sentence), argument, [found.names[0]]))
        return found.names[0]

    def _no_such(self, noun: Noun, said: str, near: Sequence[str]) -> NoReturn:
        sentence = unknown(noun, said)
        if noun == "folder" and fold(said) in map(fold, self._names.trashed_folders):
            sentence = S("The folder {said} is in the trash; restore it first.", said=said)
        raise _Stop(Unfit(unfit(self._ctx, "not_found", sentence, near)))

    def _which_of(self, argument: str, said: str, fitting: Sequence[str]) -> NoReturn:
        shown = list(fitting[:_CHOICES])
        sentence = S(
            "{said} fits {count}: {names}. Which one?", said=said[:80], count=len(fitting), names=", ".join(shown)
        )
        raise _Stop(Question(sentence, self._ctx.say(sentence), argument, shown))

    async def _session(self, argument: str, noun: Noun, said: str) -> str:
        """A session's id where the id was said, else its name where that is clear, else the id."""
        sessions = self._names.sessions
        by_id = {fold(id_): id_ for id_ in sessions}
        if (key := fold(said)) in by_id or (key := "s" + key) in by_id:
            return by_id[key]
        found = find(said, list(dict.fromkeys(sessions.values())))
        ids = [id_ for id_, name in sessions.items() if name in found.names]
        if len(ids) <= 1:
            return self._settled(argument, noun, said, found)
        return await self._one_of(argument, noun, said, found, ids)

    async def _one_of(self, argument: str, noun: Noun, said: str, found: Match, ids: list[str]) -> str:
        """Several sessions fit: live ones go first; the names, or for equal names the ids, are the choices."""
        live = await self._live(ids[:50])
        names = self._names.sessions
        left = live or ids
        kinds = list(dict.fromkeys(names[id_] for id_ in left))
        if len(kinds) > 1:
            return self._settled(argument, noun, said, Match(tuple(kinds), found.sure))
        if len(live) > 1:
            self._which_of(argument, said, live)
        return self._settled(argument, noun, said, Match((kinds[0],), found.sure))

    async def _live(self, ids: Sequence[str]) -> list[str]:
        async def is_live(id_: str) -> bool:
            try:
                return (await self._ctx.client.session(id_)).state in _LIVE
            except NotFound:
                return False

        states = await asyncio.gather(*(is_live(id_) for id_ in ids))
        return [id_ for id_, alive in zip(ids, states, strict=True) if alive]


def _certain(found: Match) -> bool:
    return bool(found.names) and found.sure


def _items(raw: Any) -> list[Any]:
    """A list as it is; a string cut at commas and "and"."""
    if not isinstance(raw, str):
        return list(raw) if isinstance(raw, list | tuple) else [raw]
    return [part for part in re.split(r"\s*,\s*|\s+(?:and|및|하고|그리고)\s+", raw.strip()) if part]


def _plain(value: Any) -> str:
    """A JSON scalar as a person would write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return number(value) if isinstance(value, float) else str(value)
