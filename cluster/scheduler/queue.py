"""Who is next in a resource group: priority first, then the group's policy.

Waiting sessions that are alike in everything that decides (user, project, class, priority, time limit) form a bucket;
buckets of the same class and time limit form a kind. A kind that has no room is passed over as a whole, so that a pass
costs what it starts and tries, not what waits.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush, heapreplace

from sortedcontainers import SortedList

from cluster.errors import Invalid
from cluster.scheduler.fleet import need_of, units
from cluster.scheduler.place import Wish
from cluster.scheduler.state import Group, Request
from cluster.sentence import S

POLICIES = ("fifo", "lifo", "drf", "fair_share", "short_first")

Amounts = tuple[int, int, int]
"""Cores and devices in units, bytes between them: (cpu, memory, gpu)."""

Place = tuple[int, float, str]
"""(-priority, age, id): lower goes first among those of equal share. Under short_first the standing is the age."""


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

    __slots__ = ("amounts", "aside", "items", "kind", "priority", "project", "user")

    def __init__(self, request: Request, kind: "Kind") -> None:
        self.user, self.project = request.user, request.project
        self.kind, self.priority = kind, request.priority
        self.amounts = amounts(request)
        self.aside: tuple[str, str] | None = None
        """Whose quota it waits for, in no line meanwhile."""
        self.items: SortedList[tuple[float, str, Request]] = SortedList(key=_age_and_id)

    @property
    def wish(self) -> Wish:
        return self.kind.wish

    @property
    def limit(self) -> float | None:
        return self.kind.limit

    def place(self, at: int) -> Place:
        age, ident, _ = self.items[at]
        return -self.priority, age, ident


def _age_and_id(item: tuple[float, str, Request]) -> tuple[float, str]:
    return item[0], item[1]


Head = tuple[Place, Bucket]


def _first(head: Head) -> Place:
    return head[0]


class Lines:
    """The heads of buckets in order; a line for each user where shares decide between them, else one."""

    __slots__ = ("by_name",)

    def __init__(self) -> None:
        self.by_name: dict[str, SortedList[Head]] = {}

    def change(self, line: str, bucket: Bucket, before: Place | None, after: Place | None) -> None:
        """The bucket's head has moved from one place to another; None: it was, or is, empty."""
        heads = self.by_name.get(line)
        if heads is None:
            heads = self.by_name[line] = SortedList(key=_first)
        if before is not None:
            heads.remove((before, bucket))
        if after is not None:
            heads.add((after, bucket))
        elif not heads:
            del self.by_name[line]


class Kind(Lines):
    """The waiting sessions that need the same and end after the same time: they have room together, or none has."""

    __slots__ = ("buckets", "limit", "wish")

    def __init__(self, wish: Wish, limit: float | None) -> None:
        super().__init__()
        self.wish, self.limit = wish, limit
        self.buckets = 0
        """How many there are, those that stand aside too."""


class Lane:
    """The waiting sessions of one group."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.shared = checked(group.policy) in ("drf", "fair_share")
        self._age = -1.0 if group.policy == "lifo" else 1.0
        self.buckets: dict[object, Bucket] = {}
        self.lines = Lines()
        self.kinds: dict[tuple[Wish, float | None], Kind] = {}
        self.waiting = 0

    def line(self, bucket: Bucket) -> str:
        return bucket.user if self.shared else ""

    def add(self, request: Request) -> Bucket | None:
        """The session waits; returns its bucket when that is new."""
        key = _alike(request)
        bucket = self.buckets.get(key)
        new = bucket is None
        if bucket is None:
            bucket = self.buckets[key] = Bucket(request, self._kind(request))
        before = self._head(bucket)
        bucket.items.add(self._item(request))
        self._line_up(bucket, before, self._head(bucket))
        self.waiting += 1
        return bucket if new else None

    def _kind(self, request: Request) -> Kind:
        key = wish_of(request), request.time_limit
        found = self.kinds.get(key)
        if found is None:
            found = self.kinds[key] = Kind(*key)
        found.buckets += 1
        return found

    def remove(self, request: Request) -> Bucket | None:
        """The session waits no more; returns its bucket when that is gone."""
        key = _alike(request)
        bucket = self.buckets[key]
        before = self._head(bucket)
        bucket.items.remove(self._item(request))
        self._line_up(bucket, before, self._head(bucket))
        self.waiting -= 1
        if bucket.items:
            return None
        del self.buckets[key]
        bucket.kind.buckets -= 1
        if not bucket.kind.buckets:
            del self.kinds[bucket.kind.wish, bucket.kind.limit]
        return bucket

    def _item(self, request: Request) -> tuple[float, str, Request]:
        age = request.standing if self.group.policy == "short_first" else self._age * request.submitted.timestamp()
        return age, request.id, request

    @staticmethod
    def _head(bucket: Bucket) -> Place | None:
        """Where the bucket stands in its lines; None when it is in none."""
        return bucket.place(0) if bucket.items and bucket.aside is None else None

    def _line_up(self, bucket: Bucket, before: Place | None, after: Place | None) -> None:
        """Keep the bucket's head in its lines true."""
        if before != after:
            line = self.line(bucket)
            self.lines.change(line, bucket, before, after)
            bucket.kind.change(line, bucket, before, after)

    def put_aside(self, bucket: Bucket, owner: tuple[str, str]) -> None:
        """Out of its lines, until `owner`'s quota has room again."""
        self._line_up(bucket, self._head(bucket), None)
        bucket.aside = owner

    def put_back(self, bucket: Bucket) -> None:
        bucket.aside = None
        self._line_up(bucket, None, self._head(bucket))


def _alike(request: Request) -> object:
    return (
        request.user, request.project, request.priority, request.time_limit, request.node_count, request.rack,
        request.cpu, request.memory, request.gpu, request.gpu_model, request.kind,
    )  # fmt: skip


def wish_of(request: Request) -> Wish:
    """The class of the request."""
    return Wish(need_of(request), request.node_count, request.rack if request.node_count > 1 else None)


Heads = Sequence[Head]

Entry = tuple[Place, int, Bucket, Heads | None, int]
"""Place, position in the bucket, the bucket; if this is its head also where it came from and as the how manieth."""


class _Line:
    """One line during a pass: what comes next of each bucket, the buckets taken from their sources one by one."""

    __slots__ = ("_gone", "_next", "_only", "user")

    def __init__(
        self, user: str, sources: Iterable[Heads], gone: Mapping[int, int], only: Mapping[int, Kind] | None = None
    ) -> None:
        """`sources` are heads in order; of a bucket the first `gone[id(bucket)]` sessions have started already.

        `only`: the kinds that count, by id, where a source has others as well.
        """
        self.user, self._gone, self._only = user, gone, only
        self._next: list[Entry] = []
        for source in sources:
            self._pull(source, 0)
        heapify(self._next)

    def _pull(self, source: Heads, number: int) -> None:
        """Put in the next head of the source, and what is left of buckets before it. The heap's order is not kept."""
        while number < len(source):
            place, bucket = source[number]
            if self._only is not None and id(bucket.kind) not in self._only:
                number += 1
                continue
            at = self._gone.get(id(bucket), 0)
            if not at:
                self._next.append((place, 0, bucket, source, number))
                return
            if at < len(bucket.items):
                self._next.append((bucket.place(at), at, bucket, None, 0))
            number += 1

    def current(self) -> Entry | None:
        return self._next[0] if self._next else None

    def go_on(self, drop: bool) -> None:
        """Past the current session; with `drop` past its whole bucket."""
        _, at, bucket, source, number = heappop(self._next)
        if not drop and at + 1 < len(bucket.items):
            heappush(self._next, (bucket.place(at + 1), at + 1, bucket, None, 0))
        if source is not None:
            before = len(self._next)
            self._pull(source, number + 1)
            for entry in [self._next.pop() for _ in range(len(self._next) - before)]:
                heappush(self._next, entry)

    def shut(self) -> None:
        """Past the current session, whose kind is closed, and all of its kind."""
        if self._only is None:
            heappop(self._next)
        else:
            self.go_on(drop=True)


MANY = 8
"""One kind of so many open: to look for one's next among all costs as much as to look into each that is open."""

Key = tuple[int, float, float, str]
"""(-priority, share, age, id): lower goes first."""


class Turns:
    """A lane's waiting sessions in their order, during one pass. The lane itself does not change."""

    def __init__(
        self,
        lane: Lane,
        share: Callable[[str], float],
        kinds: Iterable[Kind] | None = None,
        gone: Mapping[int, int] | None = None,
    ) -> None:
        """All sessions, or those of some `kinds`; of a bucket the first `gone[id(bucket)]` have started already."""
        self._lane, self._share, self._gone = lane, share, gone or {}
        self._kinds = None if kinds is None else {id(kind): kind for kind in kinds}
        self._heap: list[tuple[Key, str, _Line | None]] = []
        for user, heads in lane.lines.by_name.items():
            priority, age, ident = heads[0][0]
            self._heap.append(((priority, share(user), age, ident), user, None))
        heapify(self._heap)

    def head(self) -> tuple[Key, Bucket, Request] | None:
        """The next session and where it stands; None when all had their turn."""
        while self._heap:
            key, user, line = self._heap[0]
            line = line or self._line(user)
            entry = line.current()
            while entry is not None and not self._open(entry[2]):
                line.shut()
                entry = line.current()
            if entry is None:
                heappop(self._heap)
                continue
            (priority, age, ident), at, bucket, *_ = entry
            true = (priority, key[1], age, ident)
            if true == key:
                self._heap[0] = key, user, line
                return key, bucket, bucket.items[at][2]
            heapreplace(self._heap, (true, user, line))  # it stands further back than it seemed
        return None

    def _line(self, user: str) -> _Line:
        """A user's kinds together; one by one when few of them are open, or when the line is everybody's, so as not to
        look at all that are closed."""
        whole, kinds = self._lane.lines.by_name[user], self._kinds
        if kinds is None:
            return _Line(user, [whole], self._gone)
        if self._lane.shared and len(kinds) * MANY > len(self._lane.kinds):
            return _Line(user, [whole], self._gone, kinds)
        mine = (kind.by_name.get(user) for kind in kinds.values())
        return _Line(user, [heads for heads in mine if heads], self._gone)

    def _open(self, bucket: Bucket) -> bool:
        return self._kinds is None or id(bucket.kind) in self._kinds

    def go_on(self, drop: bool = False) -> None:
        """Past the head; with `drop` past all of its user and project that are like it."""
        _, user, line = self._heap[0]
        if line is None:
            return
        line.go_on(drop)
        entry = line.current()
        if entry is None:
            heappop(self._heap)
        else:
            priority, age, ident = entry[0]
            heapreplace(self._heap, ((priority, self._share(user), age, ident), user, line))

    def close(self, kind: Kind) -> None:
        """Past all sessions of a kind, whoever's; only among chosen `kinds`."""
        if self._kinds is None:
            raise TypeError("these are the turns of all kinds: drop buckets instead")
        self._kinds.pop(id(kind), None)
        if not self._kinds:
            self._heap.clear()
