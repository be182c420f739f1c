"""Where the running sessions of a scenario sit: devices as the scheduler chooses; what doesn't fit is a mistake."""

from cluster.lifecycle import HOLDING
from cluster.models import NodeStatus, SessionState
from cluster.scheduler import reasons
from cluster.scheduler.fleet import Fleet, Need
from cluster.scheduler.place import Wish, place
from cluster.scheduler.room import Room, Spot
from cluster.scheduler.selectors import Mood, selector
from cluster.scheduler.state import NodeView, Placement
from cluster.sentence import S, Sentence
from cluster.simulator.scenario import NodeSpec, Scenario, SessionSpec
from cluster.simulator.source import Mistake, Source


def view_of(node: NodeSpec) -> NodeView:
    """The node, empty."""
    return NodeView(
        name=node.name,
        group=node.resource_group,
        schedulable=node.status == NodeStatus.ALIVE,
        cpu=node.cpu,
        memory=node.memory,
        cpu_free=node.cpu,
        memory_free=node.memory,
        devices=(1.0,) * node.gpu,
        gpu_model=node.gpu_model,
        rack=node.rack,
    )


def need_of(session: SessionSpec) -> Need:
    """What each of its nodes has to give. The session is complete: amounts and group are known."""
    count = session.node_count or 1
    return Need(
        session.resource_group or "",
        (session.cpu or 0) / count,
        (session.memory or 0) // count,
        session.gpu / count,
        session.gpu_model,
    )


def lay_out(scenario: Scenario, source: Source, mistakes: list[Mistake]) -> dict[str, tuple[Placement, ...]]:
    """Session id -> its ranks. Named nodes first, whole GPUs before fractions; then those without a node."""
    room = Room.of(Fleet(map(view_of, scenario.nodes)))
    holding = [session for session in scenario.sessions if session.status in HOLDING]
    found: dict[str, tuple[Placement, ...]] = {}
    for session in sorted(holding, key=lambda s: (not s.on, need_of(s).fraction)):
        ranks = _ranks(room, session)
        if isinstance(ranks, Sentence) and session.if_there_is_room:
            session.status, session.started = SessionState.PENDING, None
        elif isinstance(ranks, Sentence):
            mistakes.append(Mistake(source.line((*session.at, "node")), ranks))
        elif session.id:
            found[session.id] = ranks
    return found


def _ranks(room: Room, session: SessionSpec) -> tuple[Placement, ...] | Sentence:
    if session.on:
        return _on_named(room, session)
    need = need_of(session)
    spots = place(room, Wish(need, session.node_count or 1), selector("concentrated"), Mood())
    if spots is None:
        return S("{session} is {state}, but no node of {group} has room for it", **_words(session))
    room.take(need, spots)
    return tuple(room.placement(need, spot) for spot in spots)


def _words(session: SessionSpec) -> dict[str, str]:
    return {"session": session.name, "state": session.status.value, "group": session.resource_group or ""}


def _on_named(room: Room, session: SessionSpec) -> tuple[Placement, ...] | Sentence:
    need = need_of(session)
    ranks: list[Placement] = []
    for name in session.on:
        i = room.fleet.index.get(name)
        if i is None:
            return ()  # an unknown node has its own mistake
        if not need.sensible:
            return reasons.odd_share(need.gpu).message
        if short := reasons.short_on(room, i, need):
            return _too_much(session, name, short[0])
        if need.gpu and not room.fleet.suits(i, need):
            return S(
                "{session} asks for {model}, which {node} has not",
                model=need.gpu_model or "",
                node=name,
                session=session.name,
            )
        spot = Spot(i, room.offer(i, need))
        ranks.append(room.placement(need, spot))
        room.take(need, [spot])
    return tuple(ranks)


def _too_much(session: SessionSpec, node: str, short: reasons.Short) -> Sentence:
    words = {
        "session": session.name,
        "state": session.status.value,
        "node": node,
        "asked": reasons.amount(short.resource, short.asked),
        "free": reasons.amount(short.resource, short.free),
    }
    if short.resource == "gpu":
        return S("{session} is {state} on {node} with {asked} GPUs, but only {free} are left there", **words)
    if short.resource == "cpu":
        return S("{session} is {state} on {node} with {asked} cores, but only {free} are left there", **words)
    return S("{session} is {state} on {node} with {asked} of memory, but only {free} is left there", **words)
