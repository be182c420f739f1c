"""All checks, what of their findings concerns one thing, and the sentence that says it all."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from cluster.diagnosis import nodes, queue, rest, sessions
from cluster.diagnosis.seen import Seen, finding, look, span, worst_first
from cluster.lifecycle import WAITING
from cluster.models import Endpoint, Finding, Node, Sentence, Session, SessionResult, SessionState
from cluster.sentence import S
from cluster.units import listed

CHECKS: tuple[Callable[[Seen], Iterator[Finding]], ...] = (
    nodes.lost,
    nodes.hot,
    nodes.closed,
    nodes.disk,
    sessions.told,
    sessions.ended,
    sessions.idle,
    queue.never,
    queue.held_back,
    queue.closed_to_it,
    queue.dependency,
    queue.fragmented,
    queue.starved,
    rest.endpoints,
    rest.runs,
    rest.folders,
)
QUEUE = frozenset({"never_starts", "quota", "no_node", "dependency", "fragmented", "starved"})
NAMED = 3
"""So many names are said in a sentence."""


def everything(seen: Seen) -> list[Finding]:
    """What all checks find, the worst first."""
    return worst_first(chain.from_iterable(check(seen) for check in CHECKS))


# ── of one thing ─────────────────────────────────────────────────────────────────────────────────


def of_session(seen: Seen, session: Session) -> list[Finding]:
    """Its own, those of the nodes that it is on; and if it waits and nothing else is said, why."""
    on = {a.node for a in session.allocations}
    found = [f for f in everything(seen) if _is(f, session) or (f.kind == "node" and f.target in on)]
    if session.state in WAITING and not any(_is(f, session) for f in found):
        found += [_waits(seen, session)]
    return worst_first(found)


def _is(finding: Finding, session: Session) -> bool:
    return finding.kind == "session" and finding.evidence.get("session") == session.id


def _waits(seen: Seen, session: Session) -> Finding:
    age = seen.age(session.submitted)
    plain = S("{name} has waited for {time}.", name=session.name, time=span(age))
    return finding(
        session,
        "waits",
        "info",
        session.reasons[0].message if session.reasons else plain,
        {"waiting_seconds": round(age), "session": session.id},
        proposal=look("explain_pending", session=seen.ref(session)),
    )


def of_node(seen: Seen, node: Node) -> list[Finding]:
    """Its own, and those of the sessions on it."""
    there = {s.id for s in seen.sessions if any(a.node == node.name for a in s.allocations)}
    return [
        f
        for f in everything(seen)
        if (f.kind == "node" and f.target == node.name) or (f.kind == "session" and f.evidence.get("session") in there)
    ]


def of_endpoint(seen: Seen, endpoint: Endpoint) -> list[Finding]:
    """Its own, those of its replicas' sessions and of the nodes they are on."""
    mine, on = {r.session for r in endpoint.replicas}, {r.node for r in endpoint.replicas}
    return [
        f
        for f in everything(seen)
        if (f.kind == "endpoint" and f.target == endpoint.name)
        or (f.kind == "session" and f.evidence.get("session") in mine)
        or (f.kind == "node" and f.target in on)
    ]


# ── said in short ────────────────────────────────────────────────────────────────────────────────


def summary(seen: Seen, found: list[Finding]) -> list[Sentence]:
    """Of the whole cluster, as clauses; what is only to be known (info) is no trouble."""
    bad = [f for f in found if f.severity != "info"]
    clauses = [_nodes(seen, bad), _failed(bad), _troubled(seen, bad), _idle(bad), _queue(seen, bad)]
    clauses += [_served(seen, bad), _runs(bad), _folders(bad)]
    server = [f.message for f in bad if f.kind == "cluster"]
    return [*server, *(clause for clause in clauses if clause is not None)]


def _nodes(seen: Seen, bad: list[Finding]) -> Sentence | None:
    names = _names(f for f in bad if f.kind == "node")
    if not seen.nodes:
        return S("there are no nodes")
    if not names:
        return S("the nodes ({all}) are fine", all=len(seen.nodes))
    words: dict[str, str | int] = {"count": len(names), "all": len(seen.nodes), "names": listed(names, NAMED)}
    if len(names) == 1:
        return S("1 of {all} nodes needs attention ({names})", **words)
    return S("{count} of {all} nodes need attention ({names})", **words)


def _failed(bad: list[Finding]) -> Sentence | None:
    count = len({f.evidence["session"] for f in bad if f.code not in QUEUE and f.evidence.get("ended")})
    if not count:
        return None
    return S("1 session failed lately") if count == 1 else S("{count} sessions failed lately", count=count)


def _troubled(seen: Seen, bad: list[Finding]) -> Sentence | None:
    live = {s.id for s in seen.sessions if s.state is SessionState.RUNNING}
    here = [f for f in bad if f.code != "idle_gpu" and f.evidence.get("session") in live]
    names = _names(here)
    if not names:
        return None
    words: dict[str, str | int] = {"count": len(names), "names": listed(names, NAMED)}
    if len(names) == 1:
        return S("1 running session is in trouble ({names})", **words)
    return S("{count} running sessions are in trouble ({names})", **words)


def _idle(bad: list[Finding]) -> Sentence | None:
    idle = [f for f in bad if f.code == "idle_gpu"]
    if not idle:
        return None
    gpu = sum(float(f.evidence["gpu"]) for f in idle)
    if len(idle) == 1:
        return S("1 session holds {gpu} idle GPU", gpu=gpu)
    return S("{count} sessions hold {gpu} idle GPU", count=len(idle), gpu=gpu)


def _queue(seen: Seen, bad: list[Finding]) -> Sentence:
    waiting = len(seen.waiting())
    if not waiting:
        return S("nobody waits")
    count = len({f.evidence["session"] for f in bad if f.code in QUEUE})
    if not count:
        return S("the queue is fine ({all} waiting)", all=waiting)
    return S("of {all} waiting sessions, {count} are held up", all=waiting, count=count)


def _served(seen: Seen, bad: list[Finding]) -> Sentence | None:
    names = _names(f for f in bad if f.kind == "endpoint")
    if not names:
        return S("the endpoints ({all}) answer", all=len(seen.endpoints)) if seen.endpoints else None
    return S(
        "of {all} endpoints, {count} have trouble ({names})",
        all=len(seen.endpoints),
        count=len(names),
        names=listed(names, NAMED),
    )


def _runs(bad: list[Finding]) -> Sentence | None:
    names = _names(f for f in bad if f.kind == "pipeline")
    return S("pipelines failed: {names}", names=listed(names, NAMED)) if names else None


def _folders(bad: list[Finding]) -> Sentence | None:
    names = _names(f for f in bad if f.kind == "folder")
    return S("folders need room: {names}", names=listed(names, NAMED)) if names else None


def of_one(thing: Session | Node | Endpoint, found: list[Finding]) -> list[Sentence]:
    """Of one thing: the worst that was found; or that nothing was, and how it is."""
    bad = [f for f in found if f.severity != "info"]
    if bad:
        more = len(bad) - 1
        return [bad[0].message, *([S("{count} more below", count=more)] if more else [])]
    return [S("nothing is wrong with {name}", name=thing.name), *([found[0].message] if found else _how(thing))]


def _how(thing: Session | Node | Endpoint) -> list[Sentence]:
    if isinstance(thing, Endpoint):
        return [S("{count} of {wanted} replicas take requests", count=thing.traffic.replicas, wanted=thing.wanted)]
    if isinstance(thing, Node):
        used = thing.capacity.gpu - thing.free.gpu
        return [S("it answers; {used} of {all} GPU are held", used=used, all=thing.capacity.gpu)]
    if thing.state is SessionState.RUNNING and thing.gpu_utilization is not None:
        percent = round(100 * thing.gpu_utilization)
        return [S("it runs and uses {percent} % of its {gpu} GPU", percent=percent, gpu=thing.resources.gpu)]
    if thing.result is SessionResult.SUCCESS:
        return [S("it ended well")]
    return [S("it is {state}", state=thing.state.value)]


def _names(found: Iterable[Finding]) -> list[str]:
    return list(dict.fromkeys(f.target for f in found))
