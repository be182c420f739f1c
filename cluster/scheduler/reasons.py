"""Why a session waits, is held, or could never run: every sentence of the scheduler is made here, from its numbers."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np

from cluster.models import Reason
from cluster.scheduler.fleet import UNIT, Fleet, Floats, Ints, Need
from cluster.scheduler.place import Wish
from cluster.scheduler.quota import Over
from cluster.scheduler.room import Room
from cluster.scheduler.state import Group, Request, Running
from cluster.sentence import S, Sentence
from cluster.units import human_size

Number = int | float

UNKNOWN_GROUP = "There is no resource group {group}."


def number(value: float) -> Number:
    """4 for 4.0, and at most two decimals else."""
    rounded = round(value, 2)
    return int(rounded) if rounded == int(rounded) else rounded


def told(resource: str, units: int) -> float:
    """The scheduler's whole numbers as cores, devices, bytes or sessions."""
    return units / UNIT if resource in ("cpu", "gpu") else float(units)


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

_OVER: dict[tuple[str, str], Sentence] = {
    ("user", "gpu"): Sentence(
        text="{owner} holds {used} of {limit} GPUs of their quota; {asked} more would exceed it."
    ),
    ("user", "cpu"): Sentence(
        text="{owner} holds {used} of {limit} cores of their quota; {asked} more would exceed it."
    ),
    ("user", "memory"): Sentence(
        text="{owner} holds {used} of {limit} memory of their quota; {asked} more would exceed it."
    ),
    ("user", "sessions"): Sentence(
        text="{owner} runs {used} of {limit} sessions of their quota; {asked} more would exceed it."
    ),
    ("project", "gpu"): Sentence(
        text="Project {owner} holds {used} of {limit} GPUs of its quota; {asked} more would exceed it."
    ),
    ("project", "cpu"): Sentence(
        text="Project {owner} holds {used} of {limit} cores of its quota; {asked} more would exceed it."
    ),
    (
        "project",
        "memory",
    ): Sentence(text="Project {owner} holds {used} of {limit} memory of its quota; {asked} more would exceed it."),
    (
        "project",
        "sessions",
    ): Sentence(text="Project {owner} runs {used} of {limit} sessions of its quota; {asked} more would exceed it."),
}

_LENT = {
    "gpu": Sentence(
        text="Other projects of {cohort} have borrowed what is left of the GPUs of {owner}; {asked} asked."
    ),
    "cpu": Sentence(
        text="Other projects of {cohort} have borrowed what is left of the cores of {owner}; {asked} asked."
    ),
    "memory": Sentence(
        text="Other projects of {cohort} have borrowed what is left of the memory of {owner}; {asked} asked."
    ),
    "sessions": Sentence(text="Other projects of {cohort} have borrowed what is left of the sessions of {owner}."),
}

_SHARED = {
    "gpu": Sentence(
        text="The projects of {cohort} hold {used} of their {limit} GPUs together; {asked} more would exceed it."
    ),
    "cpu": Sentence(
        text="The projects of {cohort} hold {used} of their {limit} cores together; {asked} more would exceed it."
    ),
    "memory": Sentence(
        text="The projects of {cohort} hold {used} of their {limit} memory together; {asked} more would exceed it."
    ),
    "sessions": Sentence(
        text="The projects of {cohort} run {used} of their {limit} sessions together; {asked} more would exceed it."
    ),
}

_ABOVE: dict[tuple[str, str], Sentence] = {
    ("user", "gpu"): Sentence(text="{asked} GPUs asked, but the quota of {owner} is {limit} in all."),
    ("user", "cpu"): Sentence(text="{asked} cores asked, but the quota of {owner} is {limit} in all."),
    ("user", "memory"): Sentence(text="{asked} memory asked, but the quota of {owner} is {limit} in all."),
    ("user", "sessions"): Sentence(text="The quota of {owner} is {limit} sessions."),
    ("project", "gpu"): Sentence(text="{asked} GPUs asked, but the quota of project {owner} is {limit} in all."),
    ("project", "cpu"): Sentence(text="{asked} cores asked, but the quota of project {owner} is {limit} in all."),
    ("project", "memory"): Sentence(text="{asked} memory asked, but the quota of project {owner} is {limit} in all."),
    ("project", "sessions"): Sentence(text="The quota of project {owner} is {limit} sessions."),
}


def over_quota(over: Over, holders: Sequence[str]) -> Reason:
    """Not now: too much is held already, by `holders`."""
    asked, left = told(over.resource, over.asked), told(over.resource, max(over.cap - over.used, 0))
    params = {
        "owner": over.owner,
        "used": amount(over.resource, told(over.resource, over.used)),
        "limit": amount(over.resource, told(over.resource, over.cap)),
        "asked": amount(over.resource, asked),
    }
    message = _OVER[over.scope, over.resource]
    if over.cohort is not None:
        message = (_LENT if over.lent else _SHARED)[over.resource]
        params["cohort"] = over.cohort
    message = message.model_copy(update={"params": params})
    return Reason(
        code="quota", message=message, resource=over.resource, asked=asked, available=left, ahead=list(holders[:20])
    )


def above_quota(over: Over) -> Reason:
    """Never: the request alone is above the quota."""
    asked, limit = told(over.resource, over.asked), told(over.resource, over.cap)
    params = {"owner": over.owner, "limit": amount(over.resource, limit), "asked": amount(over.resource, asked)}
    message = _ABOVE[over.scope, over.resource].model_copy(update={"params": params})
    return Reason(code="quota", message=message, resource=over.resource, asked=asked, available=limit)


# ── giving way ───────────────────────────────────────────────────────────────────────────────────


def gives_way(victim: Running, head: Request) -> Reason:
    if victim.priority < head.priority:
        message = S(
            "{victim} makes room for {name}, which has a higher priority; it is queued again.",
            victim=victim.name,
            name=head.name,
        )
    else:
        message = S(
            "{victim} makes room for {name}, which will likely be done much sooner; it is queued again.",
            victim=victim.name,
            name=head.name,
        )
    return Reason(code="preempted", message=message, ahead=[head.name])


def gives_back(victim: Running, head: Request) -> Reason:
    message = S(
        "{victim} gives back what project {project} had borrowed, for {name}; it is queued again.",
        victim=victim.name,
        project=victim.project,
        name=head.name,
    )
    return Reason(code="preempted", message=message, ahead=[head.name])


# ── never ────────────────────────────────────────────────────────────────────────────────────────


def no_group(group: str, known: Iterable[str]) -> Reason:
    message = Sentence(text=UNKNOWN_GROUP, params={"group": group})
    return Reason(code="impossible", message=message, candidates=sorted(known))


def unusable(group: Group) -> Reason:
    """It is in the database with a policy or selector that this version does not have."""
    message = S(
        "Nothing starts in resource group {group}: its policy {policy} or its selector {selector} is not known. "
        "An admin can set another.",
        group=group.name,
        policy=group.policy,
        selector=group.selector,
    )
    return Reason(code="impossible", message=message)


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


def too_few_nodes(wish: Wish, capable: int) -> Reason:
    message = S(
        "{asked} nodes asked, but only {most} of {group} could hold a part of it.",
        asked=wish.count,
        most=capable,
        group=wish.need.group,
    )
    return Reason(code="impossible", message=message, resource="node", asked=wish.count, available=capable)


def too_small_racks(wish: Wish, most: int) -> Reason:
    message = S(
        "{asked} nodes on one rack asked, but no rack of {group} has more than {most} that could hold a part of it.",
        asked=wish.count,
        most=most,
        group=wish.need.group,
    )
    return Reason(code="impossible", message=message, resource="rack", asked=wish.count, available=most)


def shut(fleet: Fleet, wish: Wish) -> tuple[Reason, ...]:
    """It would fit, but on nodes that take no new work; empty when enough of them do."""
    able, group = len(fleet.eligible(wish.need)), wish.need.group
    if able >= wish.count:
        return ()
    closed = [fleet.nodes[i] for i in fleet.capable(wish.need) if not fleet.open[i]]
    names = ", ".join(node.name for node in closed[:4])
    if able:
        message = S(
            "{asked} nodes asked, only {able} that could hold it take new work; {nodes} of {group} do not.",
            asked=wish.count,
            able=able,
            nodes=names,
            group=group,
        )
    else:
        message = S("The nodes of {group} that could hold it take no new work: {nodes}.", nodes=names, group=group)
    node = closed[0].name if closed else None
    return (Reason(code="no_alive_node", message=message, node=node, asked=wish.count, available=able),)


# ── not now ──────────────────────────────────────────────────────────────────────────────────────


class Short(NamedTuple):
    """A resource that is short on a node."""

    resource: str
    asked: float
    free: float


def _free(room: Room, resource: str, need: Need, nodes: Ints) -> Floats:
    """How much of what `need` asks each node could give."""
    if resource == "gpu":
        return room.most[nodes] / UNIT if need.fraction else room.whole[nodes].astype(float)
    return room.cpu[nodes] / UNIT if resource == "cpu" else room.memory[nodes].astype(float)


def _asked(need: Need) -> dict[str, float]:
    wanted = {"gpu": need.gpu, "cpu": need.cpu, "memory": float(need.memory)}
    return {resource: value for resource, value in wanted.items() if value > 0}


def short_on(room: Room, i: int, need: Need) -> list[Short]:
    """What node `i` lacks now for one rank of `need`."""
    here = np.array([i])
    found = [Short(name, asked, float(_free(room, name, need, here)[0])) for name, asked in _asked(need).items()]
    return [short for short in found if short.free < short.asked - 0.5 / UNIT]


def next_pass() -> Reason:
    return Reason(code="queued_behind", message=S("It has room; its turn comes at the scheduler's next look."))


def others_first(group: str) -> Reason:
    return Reason(code="queued_behind", message=S("Others wait in {group} who go first.", group=group))


def no_room(room: Room, wish: Wish) -> tuple[Reason, ...]:
    """Why `wish` finds no place in `room`; there are enough nodes that could hold it when empty."""
    need = wish.need
    eligible = room.fleet.eligible(need)
    now = int(room.fits(need, eligible).sum())
    found: list[Reason] = []
    if wish.rack == "required" and now >= wish.count:
        return (_no_rack(wish),)
    if wish.count > 1:
        found.append(_few_open(need, wish.count, now))
    if not now:
        found += _nowhere(room, need, eligible)
    return tuple(found)


def _no_rack(wish: Wish) -> Reason:
    message = S(
        "{asked} nodes with room on one rack of {group} asked; there are as many, but on different racks.",
        asked=wish.count,
        group=wish.need.group,
    )
    return Reason(code="insufficient_resources", message=message, resource="rack", asked=wish.count)


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


def _nowhere(room: Room, need: Need, eligible: Ints) -> list[Reason]:
    """What is short on every node, with the node that has most of it; else what the nearest node lacks.

    Where GPUs are short everywhere nothing else is said: cores and memory come free together with them.
    """
    found: list[Reason] = []
    for resource, asked in _asked(need).items():
        free = _free(room, resource, need, eligible)
        best = int(free.argmax())
        if free[best] < asked - 0.5 / UNIT:
            node = room.fleet.nodes[eligible[best]].name
            found.append(_at_most(resource, asked, float(free[best]), need.group, node))
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


def _nearest(room: Room, need: Need, eligible: Ints) -> list[Reason]:
    lack = np.zeros(len(eligible))
    for resource, asked in _asked(need).items():
        lack += np.maximum(0.0, 1 - _free(room, resource, need, eligible) / asked)
    best = int(eligible[lack.argmin()])
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
