"""Who is next in a resource group: priority first, then the group's policy.

Waiting sessions that are alike in everything that decides (user, project, class, priority, time limit) form a bucket.
A bucket that finds no room is passed over as a whole, so that a pass costs what it starts and tries, not what waits.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush, heapreplace

from sortedcontainers import SortedList

from cluster.errors import Invalid
from cluster.scheduler.fleet import need_of, units
from cluster.scheduler.place import Wish
from cluster.scheduler.state import Group, Request
from cluster.sentence import S

POLICIES = ("fifo", "lifo", "drf", "fair_share")

Amounts = tuple[int, int, int]
"""Cores and devices in units, bytes between them: (cpu, memory, gpu)."""

Place = tuple[int, float, str]
"""(-priority, age, id): lower goes first among those of equal share."""


def checked(policy: str) -> str:
    """`policy`, or `Invalid` with the names there are."""
    if policy not in POLICIES:
        known = ", ".join(POLICIES)
        raise Invalid(S("There is no scheduling policy {name}; there are {known}.", name=policy, known=known))
    return policy


def amounts(request: Request) -> Amounts:
    return units(request.cpu), request.memory, units(request.gpu)


class Bucket:
    """Waiting sessions that are alike, in order."""

    __slots__ = ("amounts", "items", "limit", "priority", "project", "user", "wish")

    def __init__(self, request: Request, wish: Wish) -> None:
        self.user, self.project = request.user, request.project
        self.wish, self.priority, self.limit = wish, request.priority, request.time_limit
        self.amounts = amounts(request)
        self.items: SortedList[tuple[float, str, Request]] = SortedList(key=_age_and_id)

    def place(self, at: int) -> Place:
        age, ident, _ = self.items[at]
        return -self.priority, age, ident


def _age_and_id(item: tuple[float, str, Request]) -> tuple[float, str]:
    return item[0], item[1]


Head = tuple[Place, Bucket]


def _first(head: Head) -> Place:
    return head[0]


class Lane:
    """The waiting sessions of one group. `lines`: one for each user where shares decide between them, else one."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.shared = checked(group.policy) in ("drf", "fair_share")
        self._age = -1.0 if group.policy == "lifo" else 1.0
        self.buckets: dict[object, Bucket] = {}
        self.lines: dict[str, SortedList[Head]] = {}
        self.classes: dict[Wish, dict[int, Bucket]] = defaultdict(dict)
        self._wishes: dict[Wish, Wish] = {}
        self.waiting = 0

    def line(self, bucket: Bucket) -> str:
        return bucket.user if self.shared else ""

    def add(self, request: Request) -> None:
        key = _alike(request)
        bucket = self.buckets.get(key)
        if bucket is None:
            wish = wish_of(request)
            bucket = self.buckets[key] = Bucket(request, self._wishes.setdefault(wish, wish))
            self.classes[bucket.wish][id(bucket)] = bucket
        self._changed(bucket, lambda items: items.add(self._item(request)))
        self.waiting += 1

    def remove(self, request: Request) -> None:
        key = _alike(request)
        bucket = self.buckets[key]
        self._changed(bucket, lambda items: items.remove(self._item(request)))
        self.waiting -= 1
        if not bucket.items:
            del self.buckets[key]
            del self.classes[bucket.wish][id(bucket)]
            if not self.classes[bucket.wish]:
                del self.classes[bucket.wish], self._wishes[bucket.wish]

    def _item(self, request: Request) -> tuple[float, str, Request]:
        return self._age * request.submitted.timestamp(), request.id, request

    def _changed(self, bucket: Bucket, change: Callable[["SortedList[tuple[float, str, Request]]"], None]) -> None:
        """Keep the bucket's head in its line true."""
        line = self.lines.setdefault(self.line(bucket), SortedList(key=_first))
        before = bucket.place(0) if bucket.items else None
        change(bucket.items)
        after = bucket.place(0) if bucket.items else None
        if before != after:
            if before is not None:
                line.remove((before, bucket))
            if after is not None:
                line.add((after, bucket))
        if not line:
            del self.lines[self.line(bucket)]


def _alike(request: Request) -> object:
    return (
        request.user, request.project, request.priority, request.time_limit, request.node_count, request.rack,
        request.cpu, request.memory, request.gpu, request.gpu_model, request.kind,
    )  # fmt: skip


def wish_of(request: Request) -> Wish:
    return Wish(need_of(request), request.node_count, request.rack if request.node_count > 1 else None)


class _Line:
    """One line during a pass: the heads of its buckets, and of those it has taken from, what comes next."""

    __slots__ = ("_fresh", "_heads", "_on", "user")

    def __init__(self, user: str, heads: Iterable[Head], on: Iterable[tuple[Place, int, Bucket]] = ()) -> None:
        self.user = user
        self._heads: Iterator[Head] = iter(heads)
        self._fresh = next(self._heads, None)
        self._on = list(on)
        heapify(self._on)

    def current(self) -> tuple[Place, Bucket, int] | None:
        """Place, bucket and position in it of the next session."""
        fresh, on = self._fresh, self._on
        if fresh is not None and (not on or fresh[0] < on[0][0]):
            return fresh[0], fresh[1], 0
        return (on[0][0], on[0][2], on[0][1]) if on else None

    def go_on(self, drop: bool) -> None:
        """Past the current session; with `drop` past its whole bucket."""
        found = self.current()
        if found is None:
            return
        _, bucket, at = found
        if self._fresh is not None and self._fresh[1] is bucket:
            self._fresh = next(self._heads, None)
        else:
            heappop(self._on)
        if not drop and at + 1 < len(bucket.items):
            heappush(self._on, (bucket.place(at + 1), at + 1, bucket))


Key = tuple[int, float, float, str]
"""(-priority, share, age, id): lower goes first."""


class Turns:
    """A lane's waiting sessions in their order, during one pass. The lane itself does not change."""

    def __init__(self, lines: Iterable[_Line], share: Callable[[str], float]) -> None:
        self._share = share
        self._heap = [entry for line in lines if (entry := self._entry(line))]
        heapify(self._heap)

    @classmethod
    def of(cls, lane: Lane, share: Callable[[str], float]) -> "Turns":
        """All of them."""
        return cls((_Line(user, heads) for user, heads in lane.lines.items()), share)

    @classmethod
    def only(cls, lane: Lane, buckets: Iterable[tuple[Bucket, int]], share: Callable[[str], float]) -> "Turns":
        """The sessions of these buckets, of each from a position on."""
        lines: dict[str, list[tuple[Place, int, Bucket]]] = defaultdict(list)
        for bucket, at in buckets:
            if at < len(bucket.items):
                lines[lane.line(bucket)].append((bucket.place(at), at, bucket))
        return cls((_Line(user, (), on) for user, on in lines.items()), share)

    def _entry(self, line: _Line) -> "tuple[Key, _Line] | None":
        found = line.current()
        if found is None:
            return None
        priority, age, ident = found[0]
        return (priority, self._share(line.user), age, ident), line

    def head(self) -> tuple[Key, Bucket, Request] | None:
        """The next session and where it stands; None when all had their turn."""
        if not self._heap:
            return None
        key, line = self._heap[0]
        found = line.current()
        if found is None:
            return None
        _, bucket, at = found
        return key, bucket, bucket.items[at][2]

    def go_on(self, drop: bool = False) -> None:
        """Past the head; with `drop` past all that are like it."""
        line = self._heap[0][1]
        line.go_on(drop)
        entry = self._entry(line)
        if entry is None:
            heappop(self._heap)
        else:
            heapreplace(self._heap, entry)
