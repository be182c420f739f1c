"""Checks of what waits: what will never start, what is held back, what others overtake."""

from collections.abc import Iterator, Mapping

from cluster.diagnosis.seen import HOUR, Seen, Severity, finding, look, span
from cluster.diagnosis.sessions import stop
from cluster.lifecycle import WAITING
from cluster.models import Finding, Node, NodeStatus, Proposal, Reason, Sentence, Session
from cluster.sentence import S

PATIENCE = HOUR
"""So long a session may wait before anything is said of it that only time may put right."""
LONG = 6 * HOUR
"""So long its dependency may wait itself."""
OVERTAKEN = 3
"""So many that came later have started before it."""
LEAST = "least_fragmentation"


def never(seen: Seen) -> Iterator[Finding]:
    """Can't ever start as things are: asks for more than there is or than is allowed."""
    for session in seen.waiting():
        for reason in session.reasons:
            if reason.code == "impossible" or (reason.code == "quota" and _above(reason)):
                yield _of(
                    session,
                    "never_starts",
                    "error",
                    reason.message,
                    proposal=stop(seen, session),
                    advice=S("It never starts as it is: stop it and ask for what there is."),
                )
                break


def _above(reason: Reason) -> bool:
    """The request alone is above the quota: then the quota's limit is given as what is available."""
    return not reason.ahead and (reason.asked or 0) > (reason.available or 0) and "used" not in reason.message.params


def held_back(seen: Seen) -> Iterator[Finding]:
    """By a quota that is used up."""
    for session in seen.waiting():
        reason = next((r for r in session.reasons if r.code == "quota" and not _above(r)), None)
        if reason is None:
            continue
        age = seen.age(session.submitted)
        yield _of(
            session,
            "quota",
            "warning" if age > PATIENCE else "info",
            reason.message,
            evidence={"waiting_seconds": round(age), "asked": reason.asked or 0, "available": reason.available or 0},
            proposal=_more_quota(seen, session, reason),
        )


def _more_quota(seen: Seen, session: Session, reason: Reason) -> Proposal:
    """For those who may (others see no limits): the quota that it needs to start now. Else what is used of it."""
    owner = str(reason.message.params.get("owner", session.user))
    scope = "project" if owner == session.project and owner != session.user else "user"
    limit = seen.limits.get((scope, owner))
    if reason.resource != "gpu" or limit is None or reason.asked is None:
        return look("get_quota", **{scope: owner})
    needed = limit + reason.asked - (reason.available or 0)
    return Proposal(tool="set_quota", arguments={scope: owner, "gpu": needed})


def closed_to_it(seen: Seen) -> Iterator[Finding]:
    """Only nodes that take no new work could hold it."""
    nodes = {node.name: node for node in seen.nodes}
    for session in seen.waiting():
        for reason in session.reasons:
            if reason.code == "no_alive_node" and not session.allocations:
                node = nodes.get(reason.node or "")
                open_again = node is not None and node.status in (NodeStatus.CORDONED, NodeStatus.DRAINING)
                call = look("uncordon_node", node=node.name) if node and open_again else look("list_nodes")
                yield _of(session, "no_node", "warning", reason.message, proposal=call)


def dependency(seen: Seen) -> Iterator[Finding]:
    """It waits for one that waits long itself."""
    by_name = {s.name: s for s in seen.sessions} | {s.id: s for s in seen.sessions}
    for session in seen.waiting():
        if not any(r.code == "dependency" for r in session.reasons):
            continue
        for ref in session.depends_on:
            other = by_name.get(ref)
            if other and other.state in WAITING and (age := seen.age(other.submitted)) > LONG:
                message = S(
                    "{name} waits for {other}, which itself has waited for {time}.",
                    name=session.name,
                    other=other.name,
                    time=span(age),
                )
                yield _of(
                    session, "dependency", "warning", message, proposal=look("explain_pending", session=seen.ref(other))
                )


def fragmented(seen: Seen) -> Iterator[Finding]:
    """Enough GPUs are free in all, but nowhere enough together."""
    for session in seen.waiting():
        each = session.resources.gpu / session.node_count
        if each <= 1 or not any(r.code == "insufficient_resources" for r in session.reasons):
            continue
        able = [n for n in seen.nodes if _could_hold(n, session)]
        free = sum(n.free.gpu for n in able)
        fitting = sum(n.free.gpu >= each for n in able)
        if free < session.resources.gpu or fitting >= session.node_count:
            continue
        message = _scattered(session, free, each)
        yield _of(
            session,
            "fragmented",
            "warning" if seen.age(session.submitted) > PATIENCE else "info",
            message,
            evidence={"free_gpu": free, "each": each},
            proposal=_less_scattered(seen, session),
        )


def _scattered(session: Session, free: float, each: float) -> Sentence:
    words: dict[str, str | float] = {"free": free, "group": session.resource_group, "each": each, "name": session.name}
    if session.node_count == 1:
        return S("{free} GPU are free in {group}, but no node has the {each} that {name} needs.", **words)
    text = S("{free} GPU are free in {group}, but not {each} together on each of {nodes} nodes as {name} needs.").text
    return S(text, **words, nodes=session.node_count)


def _could_hold(node: Node, session: Session) -> bool:
    suits = session.gpu_model in (None, node.gpu_model)
    return node.status is NodeStatus.ALIVE and node.resource_group == session.resource_group and suits


def _less_scattered(seen: Seen, session: Session) -> Proposal:
    """Place so that what is free stays together, where that isn't done; only an admin may."""
    group = session.resource_group
    if seen.admin and seen.selectors.get(group, LEAST) != LEAST:
        return look("set_scheduling_policy", resource_group=group, selector=LEAST)
    return look("explain_pending", session=seen.ref(session))


def starved(seen: Seen) -> Iterator[Finding]:
    """Others of its group that came much later run already."""
    running = [s for s in seen.sessions if s.started and s.ended is None]
    for session in seen.waiting():
        age = seen.age(session.submitted)
        if age < PATIENCE or not _may_run(session):
            continue
        later = [s for s in running if s.resource_group == session.resource_group and s.submitted > session.submitted]
        if len(later) >= OVERTAKEN:
            message = S(
                "{name} has waited for {time}; {count} sessions that came later already run in {group}.",
                name=session.name,
                time=span(age),
                count=len(later),
                group=session.resource_group,
            )
            yield _of(
                session,
                "starved",
                "warning",
                message,
                evidence={"waiting_seconds": round(age), "overtaken_by": len(later)},
                proposal=look("explain_pending", session=seen.ref(session)),
            )


def _may_run(session: Session) -> bool:
    """Only room is in its way: no quota, dependency or time of its own."""
    codes = {r.code for r in session.reasons}
    return bool(codes) and codes <= {"insufficient_resources", "queued_behind"}


def _of(
    session: Session,
    code: str,
    severity: Severity,
    message: Sentence,
    *,
    advice: Sentence | None = None,
    evidence: Mapping[str, str | int | float] | None = None,
    proposal: Proposal | None = None,
) -> Finding:
    held = {"asked_gpu": session.resources.gpu, "session": session.id, **(evidence or {})}
    return finding(session, code, severity, message, held, advice=advice, proposal=proposal)
