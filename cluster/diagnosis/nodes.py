"""Checks of the nodes, and of the server's disk."""

from collections.abc import Iterator

from cluster.diagnosis.logs import clean
from cluster.diagnosis.seen import DAY, Seen, Severity, finding, look, span
from cluster.models import Finding, Node, NodeStatus, Proposal
from cluster.sentence import S, Sentence
from cluster.units import human_size

SILENT = 20.0
"""Seconds: a node says something every five, and is lost after thirty."""
HOT, TOO_HOT = 85.0, 92.0
"""°C of a GPU: data-centre boards slow down from about 85 to 90 on."""
FORGOTTEN = 2 * DAY
"""So long a node may be closed before somebody is asked whether it still has to be."""
NEARLY_FULL, FULL = 0.10, 0.03
"""Free share of the server's disk."""


def lost(seen: Seen) -> Iterator[Finding]:
    """A node that does not answer, or has been quiet for longer than it should."""
    for node in seen.nodes:
        age = seen.age(node.last_beat)
        words = {"node": node.name, "time": span(age)}
        evidence = {"silent_seconds": round(age), "gpu": node.capacity.gpu}
        if node.status is NodeStatus.LOST:
            message = S("{node} has not answered for {time}.", **words)
            advice = S("See whether the machine has power and network, then whether its agent runs there.")
            call = look("list_events", target=node.name)
            yield finding(node, "node_lost", "error", message, evidence, advice=advice, proposal=call)
        elif node.last_beat and age > SILENT:
            message = S("{node} has said nothing for {time}; it should every few seconds.", **words)
            yield finding(node, "node_silent", "warning", message, evidence, proposal=look("get_node", node=node.name))


def hot(seen: Seen) -> Iterator[Finding]:
    for node in seen.nodes:
        warmest = max([node.temperature or 0.0, *(d.temperature or 0.0 for d in node.devices)])
        if node.status is NodeStatus.LOST or warmest < HOT:
            continue
        degrees = round(warmest)
        message = S("{node} is at {degrees} °C: its GPUs slow down or stop.", node=node.name, degrees=degrees)
        call = look("cordon_node", node=node.name, reason=f"{degrees} °C") if node.status is NodeStatus.ALIVE else None
        severity: Severity = "error" if warmest >= TOO_HOT else "warning"
        advice = S("Check its fans and the air of its rack.")
        yield finding(node, "node_hot", severity, message, {"celsius": degrees}, advice=advice, proposal=call)


def closed(seen: Seen) -> Iterator[Finding]:
    """Cordoned and draining nodes: known, until they are forgotten."""
    for node in seen.nodes:
        if node.status not in (NodeStatus.CORDONED, NodeStatus.DRAINING):
            continue
        since = seen.closed.get(node.name)
        emptied = node.status is NodeStatus.DRAINING and _empty(node)
        done = emptied or not node.reason or seen.age(since) > FORGOTTEN  # else there is a reason to leave it closed
        yield finding(
            node,
            "node_drained" if emptied else f"node_{node.status.value}",
            "warning" if emptied or seen.age(since) > FORGOTTEN else "info",
            _closed(node, emptied, seen.age(since) if since else None),
            {"closed_seconds": round(seen.age(since)), "gpu": node.capacity.gpu},
            proposal=look("uncordon_node", node=node.name) if done else None,
        )


def _closed(node: Node, emptied: bool, age: float | None) -> Sentence:
    words = {"node": node.name, "time": span(age or 0), "reason": clean(node.reason or "")}
    if emptied:
        return S("{node} is drained: nothing runs there any more.", **words)
    if age is None:
        return S("{node} takes no new work.", **words)
    if node.reason:
        return S("{node} has taken no new work for {time}: {reason}", **words)
    return S("{node} has taken no new work for {time}; nobody said why.", **words)


def _empty(node: Node) -> bool:
    """By what is free: sessions of others have no names here."""
    return node.free == node.capacity


def disk(seen: Seen) -> Iterator[Finding]:
    """Of the server itself: without room there, nothing is acknowledged any more."""
    if seen.disk is None or seen.disk.size <= 0 or seen.disk.free >= NEARLY_FULL * seen.disk.size:
        return
    free = seen.disk.free
    yield Finding(
        code="server_disk",
        severity="error" if free < FULL * seen.disk.size else "warning",
        kind="cluster",
        target="server",
        message=S(
            "The server's disk is nearly full: {free} of {size} are left.",
            free=human_size(free),
            size=human_size(seen.disk.size),
        ),
        advice=S("Delete what is not needed, also in the trash; or put the cluster's data on a larger disk."),
        evidence={"free": free, "size": seen.disk.size},
        proposal=Proposal(tool="list_folders", arguments={"sort_by": "size", "order": "desc"}),
    )
