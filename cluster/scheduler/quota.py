"""What users and projects hold against what they may hold, kept up to date change by change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cluster.scheduler.fleet import units
from cluster.scheduler.queue import Amounts
from cluster.scheduler.state import Limit

RESOURCES = ("cpu", "memory", "gpu", "sessions")

Owner = tuple[str, str]
"""("user" | "project" | "cohort", name)."""

Caps = tuple[int | None, ...]
"""In the order of `RESOURCES`, in units and bytes; None is no limit."""


@dataclass(frozen=True, slots=True)
class Over:
    """A quota that a session would exceed. Amounts in units and bytes; `cohort` when that is what is used up."""

    scope: str
    owner: str
    resource: str
    cap: int
    used: int
    asked: int
    cohort: str | None = None
    lent: bool = False
    """The session keeps within its project's own quota: others of the cohort have borrowed what it lacks."""

    @property
    def holder(self) -> Owner:
        """Who has to give something back."""
        return (self.scope, self.owner) if self.cohort is None else ("cohort", self.cohort)


@dataclass(slots=True)
class _Account:
    """One user's or project's."""

    caps: Caps = (None,) * len(RESOURCES)
    borrow: Caps = (None,) * len(RESOURCES)
    used: list[int] = field(default_factory=lambda: [0] * len(RESOURCES))
    cohort: str | None = None

    def add(self, amounts: Amounts, sign: int) -> None:
        used = self.used
        used[0] += sign * amounts[0]
        used[1] += sign * amounts[1]
        used[2] += sign * amounts[2]
        used[3] += sign

    @property
    def most(self) -> Caps:
        """Its own and what it may borrow."""
        rows = zip(self.caps, self.borrow, strict=True)
        return tuple(None if cap is None or more is None else cap + more for cap, more in rows)

    @property
    def limited(self) -> bool:
        return self.caps != (None,) * len(RESOURCES)


@dataclass(slots=True)
class _Cohort:
    """Projects that lend each other what they leave idle."""

    caps: list[int] = field(default_factory=lambda: [0] * len(RESOURCES))
    used: list[int] = field(default_factory=lambda: [0] * len(RESOURCES))
    """Of what is limited: a project without a limit of something neither lends nor borrows it."""


class Quotas:
    """The quotas in force and what is used of them."""

    def __init__(self) -> None:
        self._users: dict[str, _Account] = {}
        self._projects: dict[str, _Account] = {}
        self._cohorts: dict[str, _Cohort] = {}

    def limit(self, users: Mapping[str, Limit], projects: Mapping[str, Limit], cohorts: Mapping[str, str]) -> None:
        """These are the limits from now on; what is used stays."""
        for accounts, limits in ((self._users, users), (self._projects, projects)):
            for name in accounts.keys() | limits.keys():
                account = accounts.setdefault(name, _Account())
                account.caps, account.borrow = _caps(limits.get(name)), _borrow(limits.get(name))
        self._cohorts = {}
        for name in cohorts:
            self._projects.setdefault(name, _Account())
        for name, account in self._projects.items():
            account.cohort = cohorts.get(name)
            if account.cohort is not None:
                self._join(self._cohorts.setdefault(account.cohort, _Cohort()), account)

    @staticmethod
    def _join(cohort: _Cohort, account: _Account) -> None:
        for i, cap in enumerate(account.caps):
            if cap is not None:
                cohort.caps[i] += cap
                cohort.used[i] += account.used[i]

    def charge(self, user: str, project: str, amounts: Amounts, sign: int = 1) -> None:
        """A session of so much started; with `sign` -1 it ended."""
        mine = self._users.get(user) or self._users.setdefault(user, _Account())
        ours = self._projects.get(project) or self._projects.setdefault(project, _Account())
        mine.add(amounts, sign)
        ours.add(amounts, sign)
        if ours.cohort is not None:
            used = self._cohorts[ours.cohort].used
            for i, amount in enumerate((*amounts, 1)):
                if ours.caps[i] is not None:
                    used[i] += sign * amount

    def over(self, user: str, project: str, amounts: Amounts) -> list[Over]:
        """The quotas that one more session of so much would exceed; empty when it may start."""
        mine, ours = self._users.get(user), self._projects.get(project)
        found: list[Over] = []
        if mine is not None:
            found += [Over("user", user, *row) for row in _above(mine.caps, mine.used, amounts)]
        if ours is None or not ours.limited:
            return found
        if ours.cohort is None:
            return found + [Over("project", project, *row) for row in _above(ours.caps, ours.used, amounts)]
        return found + self._over_cohort(project, ours, amounts)

    def exceeds(self, owner: Owner, amounts: Amounts) -> bool:
        """So much more is over what that user or project may hold, or all projects of that cohort, whoever asks."""
        scope, name = owner
        if scope == "cohort":
            cohort = self._cohorts.get(name)
            return cohort is not None and _full([cap or None for cap in cohort.caps], cohort.used, amounts)
        account = self._account(scope, name)
        if account is None:
            return False
        return _full(account.caps if account.cohort is None else account.most, account.used, amounts)

    def _over_cohort(self, project: str, ours: _Account, amounts: Amounts) -> list[Over]:
        cohort = self._cohorts[ours.cohort or ""]
        found = [Over("project", project, *row) for row in _above(ours.most, ours.used, amounts)]
        caps = tuple(None if cap is None else cohort.caps[i] for i, cap in enumerate(ours.caps))
        own = {row[0] for row in _above(ours.caps, ours.used, amounts)}
        for row in _above(caps, cohort.used, amounts):
            found.append(Over("project", project, *row, cohort=ours.cohort, lent=row[0] not in own))
        return found

    def never(self, user: str, project: str, amounts: Amounts) -> list[Over]:
        """The quotas that the session exceeds even when its owner, and the cohort, hold nothing."""
        found: list[Over] = []
        mine, ours = self._users.get(user), self._projects.get(project)
        nothing = [0] * len(RESOURCES)
        if mine is not None:
            found += [Over("user", user, *row) for row in _above(mine.caps, nothing, amounts)]
        if ours is not None:
            caps = ours.caps if ours.cohort is None else self._most(ours)
            found += [Over("project", project, *row) for row in _above(caps, nothing, amounts)]
        return found

    def _most(self, ours: _Account) -> Caps:
        """What a project of a cohort could hold at most: its own, and what it may borrow of what there is."""
        rows = zip(ours.caps, ours.most, self._cohorts[ours.cohort or ""].caps, strict=True)
        return tuple(
            None if cap is None else min(shared if most is None else most, shared) for cap, most, shared in rows
        )

    def borrows(self, project: str, amounts: Amounts = (0, 0, 0)) -> bool:
        """The project holds more than its own quota of something, or would with so much more."""
        ours = self._projects.get(project)
        if ours is None or ours.cohort is None:
            return False
        more = (*amounts, 1 if any(amounts) else 0)
        rows = zip(ours.caps, ours.used, more, strict=True)
        return any(cap is not None and used + extra > cap for cap, used, extra in rows)

    def limited(self, scope: str, owner: str) -> bool:
        """There is a quota of that user or project."""
        account = self._account(scope, owner)
        return account is not None and account.limited

    def _account(self, scope: str, name: str) -> _Account | None:
        return (self._users if scope == "user" else self._projects).get(name)

    def cohort(self, project: str) -> str | None:
        ours = self._projects.get(project)
        return ours.cohort if ours else None


def _full(caps: Sequence[int | None], used: Sequence[int], amounts: Amounts) -> bool:
    """Whether so much more is above one of the limits."""
    for i, cap in enumerate(caps):
        if cap is not None:
            more = amounts[i] if i < len(amounts) else 1
            if 0 < more > cap - used[i]:
                return True
    return False


def _above(caps: Caps, used: Sequence[int], amounts: Amounts) -> list[tuple[str, int, int, int]]:
    """(resource, limit, used, asked) of each limited resource that the session asks for and finds used up."""
    if not _full(caps, used, amounts):  # mostly; then no list is worth making
        return []
    rows = zip(RESOURCES, caps, used, (*amounts, 1), strict=True)
    return [(name, cap, held, more) for name, cap, held, more in rows if cap is not None and 0 < more > cap - held]


def _caps(limit: Limit | None) -> Caps:
    if limit is None:
        return (None,) * len(RESOURCES)
    return _units(limit.cpu), limit.memory, _units(limit.gpu), limit.sessions


def _borrow(limit: Limit | None) -> Caps:
    if limit is None:
        return (None,) * len(RESOURCES)
    return _units(limit.borrow_cpu), limit.borrow_memory, _units(limit.borrow_gpu), None


def _units(amount: float | None) -> int | None:
    return None if amount is None else units(amount)
