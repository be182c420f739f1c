"""What must hold when all is over, looked at from outside: through the API, in the database, among the processes."""

from collections import Counter

from cluster.client import Client
from cluster.db.temporary import outside
from cluster.errors import NotFound
from cluster.models import Event, Session
from evals.chaos.adversary import Adversary
from evals.chaos.house import House
from evals.chaos.load import Load, Promise

PAGE = 1000


async def through_the_api(client: Client, load: Load, adversary: Adversary) -> list[str]:
    """What is wrong with the sessions, the nodes, the quotas, the events and the journal; empty when nothing is."""
    wrong = list(load.wrong)
    for promise in load.promises:
        try:
            session = await client.session(promise.id)
        except NotFound:
            wrong.append(f"{promise.key} ({promise.id}) was acknowledged, and is not there")
            continue
        wrong += wrong_end(promise, session, promise.id in adversary.struck)
        wrong += wrong_runs(promise, load.house.started(promise.id), promise.id in adversary.struck)
    for node in (await client.nodes()).items:
        if node.free != node.capacity or node.sessions or node.status != "alive":
            wrong.append(f"{node.name} is {node.status}, has {node.free} of {node.capacity} free, {node.sessions}")
    for quota in (await client.quotas()).items:
        if quota.used_sessions or quota.used.cpu or quota.used.memory or quota.used.gpu:
            wrong.append(f"the {quota.scope} {quota.name} still uses {quota.used}")
    return wrong + wrong_events(await every_event(client), load.promises, load.seen)


def wrong_end(promise: Promise, session: Session, struck: bool) -> list[str]:
    """A session ends as what it did; as cancelled if it was stopped, as lost only if its supervisor was taken away."""
    natural = {0: "success", None: "cancelled"}.get(promise.kind.exit_code, "failure")
    may = {"cancelled"} if promise.stopped else {natural}
    result, code = session.result, session.exit_code
    if result not in may | ({"lost"} if struck else set()):
        return [f"{promise.key} ({promise.id}) ended as {session.state}, {result}; not as {may}; {session.reasons}"]
    if result == natural != "cancelled" and code != promise.kind.exit_code:
        return [f"{promise.key} ({promise.id}) ended with {code}, not with {promise.kind.exit_code}"]
    return []


def wrong_runs(promise: Promise, lines: list[str], struck: bool) -> list[str]:
    """Each rank wrote one line; none, at most, where it was stopped or struck before it came to that."""
    ranks = Counter(line.split()[1] for line in lines)
    whole = {str(rank): 1 for rank in range(promise.kind.nodes)}
    attempts = {line.split()[0] for line in lines}
    once = ranks == whole or ((promise.stopped or struck) and ranks.items() <= whole.items())
    return [] if once and len(attempts) <= 1 else [f"{promise.key} ({promise.id}) ran as {lines}"]


async def every_event(client: Client) -> list[Event]:
    found: list[Event] = []
    while page := (await client.events(found[-1].seq if found else 0, PAGE)).items:
        found += page
    return found


def wrong_events(events: list[Event], promises: list[Promise], seen: dict[int, Event]) -> list[str]:
    """No number is missing or double, what somebody was shown once stands, and each submission was told once."""
    stands = {e.seq: e for e in events}
    wrong = [f"event {n} was {e}, is {stands.get(n)}" for n, e in seen.items() if stands.get(n) != e]
    if [e.seq for e in events] != list(range(1, len(events) + 1)):
        wrong.append(f"the events' numbers are {[e.seq for e in events]}")
    submitted = sum("submitted" in e.message.text for e in events)
    return wrong + ([f"{submitted} events of submissions"] if submitted != len(promises) else [])


async def in_the_database(house: House, promises: list[Promise]) -> list[str]:
    """What the API does not show: sessions nobody was told of, and what ended ones still hold."""
    where = house.database
    keys = Counter(key for (key,) in await outside(where, "SELECT env ->> 'CHAOS_KEY' FROM sessions"))
    held = await outside(where, "SELECT session, rank FROM allocations")
    done = await outside(where, "SELECT id, action FROM audit WHERE result = 'done'")
    journal = {f"a-{number:04d}": action for number, action in done}
    wrong = [f"{key} has {count} sessions" for key, count in keys.items() if count != 1]
    wrong += [f"nobody was told of {key}" for key in keys.keys() - {p.key for p in promises}]
    wrong += [f"{session}, rank {rank}, is still held" for session, rank in held]
    return wrong + wrong_journal(journal, promises)


def wrong_journal(journal: dict[str, str], promises: list[Promise]) -> list[str]:
    """It holds each operation that was acknowledged, under the number that was told, and no other."""
    told = {number: action for promise in promises for number, action in promise.journal.items()}
    numbers = sorted(told.keys() | journal.keys())
    pairs = [(number, journal.get(number), told.get(number)) for number in numbers]
    return [f"journal {number} has {is_}, and {said} was acknowledged" for number, is_, said in pairs if is_ != said]
