"""Why a session waits, is held, or could never run: every sentence of the scheduler is made here, from its numbers."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from cluster.models import Reason
from cluster.scheduler.fleet import EPSILON, Need, Room, offered
from cluster.scheduler.state import NodeView, Request
from cluster.sentence import S, Sentence
from cluster.units import human_size

Number = int | float

UNKNOWN_GROUP = "There is no resource group {group}."


def number(value: float) -> Number:
    """4 for 4.0, and at most two decimals else."""
    rounded = round(value, 2)
    return int(rounded) if rounded == int(rounded) else rounded


def amount(resource: str, value: float) -> Number | str:
    """As a person says it: bytes with a unit, the rest as numbers."""
    return human_size(int(value)) if resource == "memory" else number(value)


# ── waits for others ─────────────────────────────────────────────────────────────────────────────


def depends(request: Request) -> Reason:
    names = list(request.waiting_for)
    message = S("Waits until {names} ends with success.", names=", ".join(names))
    return Reason(code="dependency", message=message, ahead=names)


def early(start_at: datetime) -> Reason:
    message = S("Asked to start at {when}, not before.", when=start_at.isoformat(timespec="minutes"))
    return Reason(code="start_at", message=message)


def behind(group: str, ahead: Sequence[str], *, fits: bool, backfill: bool) -> Reason:
    """`ahead`: names of those that go first and wait too, the first in the queue first."""
    more = len(ahead) - 1
    if fits and backfill:
        message = S(
            "Would fit now, but it would delay {first}, which is ahead of it in {group}.", first=ahead[0], group=group
        )
    elif fits:
        message = S(
            "Would fit now, but {first} is ahead of it in {group}, which keeps the order (backfill is off).",
            first=ahead[0],
            group=group,
        )
    elif more:
        message = S("Behind {first} and {more} more in {group}.", first=ahead[0], more=more, group=group)
    else:
        message = S("Behind {first} in {group}.", first=ahead[0], group=group)
    return Reason(code="queued_behind", message=message, ahead=list(ahead[:20]))


# ── quotas ───────────────────────────────────────────────────────────────────────────────────────

_OVER: dict[tuple[str, str], str] = {
    ("user", "gpu"): "{owner} holds {used} of {limit} GPUs of their quota; {asked} more would exceed it.",
    ("user", "cpu"): "{owner} holds {used} of {limit} cores of their quota; {asked} more would exceed it.",
    ("user", "memory"): "{owner} holds {used} of {limit} memory of their quota; {asked} more would exceed it.",
    ("user", "sessions"): "{owner} runs {used} of {limit} sessions of their quota; {asked} more would exceed it.",
    ("project", "gpu"): "Project {owner} holds {used} of {limit} GPUs of its quota; {asked} more would exceed it.",
    ("project", "cpu"): "Project {owner} holds {used} of {limit} cores of its quota; {asked} more would exceed it.",
    (
        "project",
        "memory",
    ): "Project {owner} holds {used} of {limit} memory of its quota; {asked} more would exceed it.",
    (
        "project",
        "sessions",
    ): "Project {owner} runs {used} of {limit} sessions of its quota; {asked} more would exceed it.",
}

_ABOVE: dict[tuple[str, str], str] = {
    ("user", "gpu"): "{asked} GPUs asked, but the quota of {owner} is {limit} in all.",
    ("user", "cpu"): "{asked} cores asked, but the quota of {owner} is {limit} in all.",
    ("user", "memory"): "{asked} memory asked, but the quota of {owner} is {limit} in all.",
    ("user", "sessions"): "The quota of {owner} is {limit} sessions.",
    ("project", "gpu"): "{asked} GPUs asked, but the quota of project {owner} is {limit} in all.",
    ("project", "cpu"): "{asked} cores asked, but the quota of project {owner} is {limit} in all.",
    ("project", "memory"): "{asked} memory asked, but the quota of project {owner} is {limit} in all.",
    ("project", "sessions"): "The quota of project {owner} is {limit} sessions.",
}


def over_quota(
    scope: str, owner: str, resource: str, limit: float, used: float, asked: float, holders: list[str]
) -> Reason:
    """Not now: too much is held already, by `holders`."""
    params = {"used": amount(resource, used), "limit": amount(resource, limit), "asked": amount(resource, asked)}
    message = Sentence(text=_OVER[scope, resource], params={"owner": owner, **params})
    left = max(limit - used, 0.0)
    return Reason(code="quota", message=message, resource=resource, asked=asked, available=left, ahead=holders[:20])


def above_quota(scope: str, owner: str, resource: str, limit: float, asked: float) -> Reason:
    """Never: the request alone is above the quota."""
    params = {"limit": amount(resource, limit), "asked": amount(resource, asked)}
    message = Sentence(text=_ABOVE[scope, resource], params={"owner": owner, **params})
    return Reason(code="quota", message=message, resource=resource, asked=asked, available=limit)


# ── never ────────────────────────────────────────────────────────────────────────────────────────


def no_group(group: str, known: Iterable[str]) -> Reason:
    message = Sentence(text=UNKNOWN_GROUP, params={"group": group})
    return Reason(code="impossible", message=message, candidates=sorted(known))


def odd_share(gpu: float) -> Reason:
    message = S(
        "{asked} GPUs on one node asked, but a share sits on one device: ask for less than 1 or a whole number.",
        asked=number(gpu),
    )
    return Reason(code="impossible", message=message, resource="gpu", asked=gpu)


def no_model(model: str, group: str, models: Sequence[str]) -> Reason:
    """No node of the group has such a GPU."""
    if models:
        message = S(
            "No node of {group} has a {model} GPU; it has {models}.", group=group, model=model, models=", ".join(models)
        )
    else:
        message = S("No node of {group} has a GPU.", group=group)
    return Reason(code="impossible", message=message, resource="gpu", candidates=list(models))


def too_large(resource: str, asked: float, most: float, node: str | None, group: str) -> Reason:
    """One node would have to hold more than any has."""
    words = {"asked": amount(resource, asked), "most": amount(resource, most), "group": group}
    if node is None:
        message = S("{group} has no nodes.", group=group)
    elif resource == "gpu":
        message = S(
            "{asked} GPUs on one node asked, but the largest node of {group} ({node}) has {most}.", node=node, **words
        )
    elif resource == "cpu":
        message = S(
            "{asked} cores on one node asked, but the largest node of {group} ({node}) has {most}.", node=node, **words
        )
    else:
        message = S(
            "{asked} memory on one node asked, but the largest node of {group} ({node}) has {most}.", node=node, **words
        )
    return Reason(code="impossible", message=message, resource=resource, asked=asked, available=most, node=node)


def no_such_node(need: Need, nearest: str) -> Reason:
    """Each amount exists somewhere, but no node has all of them."""
    message = S(
        "No node of {group} has {gpu} GPUs, {cpu} cores and {memory} memory together; {node} comes nearest.",
        group=need.group,
        gpu=number(need.gpu),
        cpu=number(need.cpu),
        memory=human_size(need.memory),
        node=nearest,
    )
    return Reason(code="impossible", message=message, node=nearest)


def too_few_nodes(group: str, asked: int, capable: int) -> Reason:
    message = S(
        "{asked} nodes asked, but only {most} of {group} could hold a part of it.",
        asked=asked,
        most=capable,
        group=group,
    )
    return Reason(code="impossible", message=message, resource="node", asked=asked, available=capable)


def closed(group: str, asked: int, able: int, shut: Sequence[NodeView]) -> Reason:
    """It would fit, but on nodes that take no new work."""
    names = ", ".join(node.name for node in shut[:4])
    if able:
        message = S(
            "{asked} nodes asked, only {able} that could hold it take new work; {nodes} of {group} do not.",
            asked=asked,
            able=able,
            nodes=names,
            group=group,
        )
    else:
        message = S("The nodes of {group} that could hold it take no new work: {nodes}.", nodes=names, group=group)
    return Reason(code="no_alive_node", message=message, node=shut[0].name, asked=asked, available=able)


# ── not now ──────────────────────────────────────────────────────────────────────────────────────


class Short(NamedTuple):
    """A resource that is short on a node."""

    resource: str
    asked: float
    free: float


def _free(resource: str) -> Callable[[Room, int, Need], float]:
    if resource == "gpu":
        return lambda room, i, need: offered(room.devices[i], need)
    return lambda room, i, need: room.cpu[i] if resource == "cpu" else float(room.memory[i])


def _asked(need: Need) -> dict[str, float]:
    wanted = {"gpu": need.gpu, "cpu": need.cpu, "memory": float(need.memory)}
    return {resource: value for resource, value in wanted.items() if value > 0}


def short_on(room: Room, i: int, need: Need) -> list[Short]:
    """What node `i` lacks now for one rank of `need`."""
    found = [Short(resource, asked, _free(resource)(room, i, need)) for resource, asked in _asked(need).items()]
    return [short for short in found if short.free < short.asked - EPSILON]


def no_room(room: Room, need: Need, count: int) -> tuple[Reason, ...]:
    """Why `count` ranks of `need` find no place in `room`; there are enough nodes that could hold them when empty."""
    eligible = room.fleet.eligible(need)
    open_now = [i for i in eligible if room.fits(i, need)]
    found: list[Reason] = []
    if count > 1:
        found.append(_few_open(need, count, len(open_now)))
    if not open_now:
        found += _nowhere(room, need, eligible)
    return tuple(found)


def _few_open(need: Need, count: int, now: int) -> Reason:
    message = S(
        "{asked} nodes with {gpu} GPUs, {cpu} cores and {memory} free each asked, {available} of {group} have it now.",
        asked=count,
        gpu=number(need.gpu),
        cpu=number(need.cpu),
        memory=human_size(need.memory),
        available=now,
        group=need.group,
    )
    return Reason(code="insufficient_resources", message=message, resource="node", asked=count, available=now)


def _nowhere(room: Room, need: Need, eligible: Sequence[int]) -> list[Reason]:
    """What is short on every node, with the node that has most of it; else what the nearest node lacks.

    Where GPUs are short everywhere nothing else is said: cores and memory come free together with them.
    """
    found: list[Reason] = []
    for resource, asked in _asked(need).items():
        free = _free(resource)
        best = max(eligible, key=lambda i: (free(room, i, need), -i))
        if free(room, best, need) < asked - EPSILON:
            found.append(_at_most(resource, asked, free(room, best, need), need.group, room.fleet.nodes[best].name))
            if resource == "gpu":
                break
    return found or _nearest(room, need, eligible)


def _at_most(resource: str, asked: float, most: float, group: str, node: str) -> Reason:
    words = {"asked": amount(resource, asked), "available": amount(resource, most), "group": group, "node": node}
    if resource == "gpu" and asked == 1:
        message = S("1 GPU asked, at most {available} free on one node of {group} ({node}).", **words)
    elif resource == "gpu":
        message = S("{asked} GPUs asked, at most {available} free on one node of {group} ({node}).", **words)
    elif resource == "cpu":
        message = S("{asked} cores asked, at most {available} free on one node of {group} ({node}).", **words)
    else:
        message = S("{asked} memory asked, at most {available} free on one node of {group} ({node}).", **words)
    return _short_reason(message, Short(resource, asked, most), node)


def _nearest(room: Room, need: Need, eligible: Sequence[int]) -> list[Reason]:
    def lack(i: int) -> tuple[float, int]:
        return sum(1 - short.free / short.asked for short in short_on(room, i, need)), i

    best = min(eligible, key=lack)
    return [_lacks(short, need.group, room.fleet.nodes[best].name) for short in short_on(room, best, need)]


def _lacks(short: Short, group: str, node: str) -> Reason:
    words = {
        "asked": amount(short.resource, short.asked),
        "available": amount(short.resource, short.free),
        "group": group,
        "node": node,
    }
    if short.resource == "gpu":
        message = S("{node} comes nearest in {group}, but has {available} of the {asked} GPUs free.", **words)
    elif short.resource == "cpu":
        message = S("{node} comes nearest in {group}, but has {available} of the {asked} cores free.", **words)
    else:
        message = S("{node} comes nearest in {group}, but has {available} of the {asked} memory free.", **words)
    return _short_reason(message, short, node)


def _short_reason(message: Sentence, short: Short, node: str) -> Reason:
    return Reason(
        code="insufficient_resources",
        message=message,
        resource=short.resource,
        asked=short.asked,
        available=short.free,
        node=node,
    )
