"""What users and projects hold against what they may hold; counted from allocations, every pass anew."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cluster.models import Reason
from cluster.scheduler import reasons
from cluster.scheduler.fleet import EPSILON
from cluster.scheduler.queue import amounts
from cluster.scheduler.state import Limit, Request, Snapshot

RESOURCES = ("cpu", "memory", "gpu", "sessions")


@dataclass(slots=True)
class Held:
    """What one user or project holds, in the order of `RESOURCES`, and the names of the sessions that hold it."""

    used: list[float] = field(default_factory=lambda: [0.0] * len(RESOURCES))
    names: list[str] = field(default_factory=list)

    def add(self, name: str, amount: Iterable[float]) -> None:
        self.names.append(name)
        self.used = [held + more for held, more in zip(self.used, (*amount, 1.0), strict=True)]


class Quotas:
    """The quotas in force and what is used of them during a pass."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._scopes: tuple[tuple[str, Mapping[str, Limit]], ...] = (
            ("user", snapshot.user_limits),
            ("project", snapshot.project_limits),
        )
        self._held: dict[tuple[str, str], Held] = defaultdict(Held)
        for running in snapshot.running:
            self._add(running.user, running.project, running.name, amounts(running.placements))

    def charge(self, request: Request) -> None:
        """Count `request` as started."""
        self._add(request.user, request.project, request.name, (request.cpu, float(request.memory), request.gpu))

    def _add(self, user: str, project: str, name: str, amount: tuple[float, float, float]) -> None:
        self._held["user", user].add(name, amount)
        self._held["project", project].add(name, amount)

    def over(self, request: Request) -> tuple[Reason, ...]:
        """Why `request` may not start now; empty when it keeps within all quotas."""
        found: list[Reason] = []
        for scope, owner, limit in self._limits(request):
            held = self._held[scope, owner]
            for resource, cap, used, asked in _rows(limit, held.used, request):
                if used + asked > cap + EPSILON:
                    found.append(reasons.over_quota(scope, owner, resource, cap, used, asked, held.names))
        return tuple(found)

    def never(self, request: Request) -> tuple[Reason, ...]:
        """Why `request` could not start even if its owner held nothing."""
        found: list[Reason] = []
        for scope, owner, limit in self._limits(request):
            for resource, cap, _, asked in _rows(limit, [0.0] * len(RESOURCES), request):
                if asked > cap + EPSILON:
                    found.append(reasons.above_quota(scope, owner, resource, cap, asked))
        return tuple(found)

    def _limits(self, request: Request) -> Iterable[tuple[str, str, Limit]]:
        for (scope, limits), owner in zip(self._scopes, (request.user, request.project), strict=True):
            if owner in limits:
                yield scope, owner, limits[owner]


def _rows(limit: Limit, used: list[float], request: Request) -> Iterable[tuple[str, float, float, float]]:
    """(resource, limit, used, asked) of each limited resource that the request asks for."""
    asked = (request.cpu, float(request.memory), request.gpu, 1.0)
    caps = (limit.cpu, limit.memory, limit.gpu, limit.sessions)
    for resource, cap, held, more in zip(RESOURCES, caps, used, asked, strict=True):
        if cap is not None and more > 0:
            yield resource, float(cap), held, more
