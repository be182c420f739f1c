"""Sessions whose quota is used up stand aside, so that a pass does not look at them until something is given back."""

from collections import defaultdict
from collections.abc import Iterator

from cluster.scheduler.queue import Bucket, Lane
from cluster.scheduler.quota import Over, Quotas

Owner = tuple[str, str]
"""("user" | "project" | "cohort", name)."""

Parked = dict[int, tuple[Lane, Bucket]]


class Parking:
    """All buckets of waiting sessions by who owns them, and those that stand aside by whose quota they wait for."""

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas
        self._owned: defaultdict[Owner, Parked] = defaultdict(dict)
        self._aside: defaultdict[Owner, Parked] = defaultdict(dict)

    def joined(self, lane: Lane, bucket: Bucket) -> None:
        """A bucket is new."""
        for owner in _owners(bucket):
            self._owned[owner][id(bucket)] = lane, bucket
        self.look(lane, bucket)

    def left(self, bucket: Bucket) -> None:
        """A bucket is empty and gone."""
        for owner in _owners(bucket):
            del self._owned[owner][id(bucket)]
            if not self._owned[owner]:
                del self._owned[owner]
        if bucket.aside is not None:
            del self._aside[bucket.aside][id(bucket)]

    def look(self, lane: Lane, bucket: Bucket) -> None:
        """Let the bucket stand aside if its quota is used up. What others have borrowed of it is its right to claim."""
        if bucket.aside is not None:
            return
        over = self._quotas.over(bucket.user, bucket.project, bucket.amounts)
        if over and not all(each.lent for each in over):
            owner = _waits_for(over[0])
            self._aside[owner][id(bucket)] = lane, bucket
            lane.put_aside(bucket, owner)

    def taken(self, user: str, project: str) -> None:
        """They hold more now."""
        for owner in (("user", user), ("project", project)):
            if self._quotas.limited(*owner):
                for lane, bucket in self._owned.get(owner, {}).values():
                    self.look(lane, bucket)

    def given(self, user: str, project: str) -> None:
        """They hold less now: what waited for that lines up again."""
        owners = [("user", user), ("project", project)]
        if cohort := self._quotas.cohort(project):
            owners.append(("cohort", cohort))
        for owner in owners:
            self._call(owner)

    def changed(self) -> None:
        """The limits are others now."""
        for owner in [*self._aside]:
            self._call(owner)
        for buckets in [*self._owned.values()]:
            for lane, bucket in buckets.values():
                self.look(lane, bucket)

    def _call(self, owner: Owner) -> None:
        for lane, bucket in self._aside.pop(owner, {}).values():
            lane.put_back(bucket)
            self.look(lane, bucket)

    def owned(self, user: str, project: str) -> Iterator[Bucket]:
        """Their buckets that do not stand aside."""
        for owner in (("user", user), ("project", project)):
            for _, bucket in self._owned.get(owner, {}).values():
                if bucket.aside is None:
                    yield bucket

    def aside(self) -> Iterator[Bucket]:
        """Those that stand aside."""
        for buckets in self._aside.values():
            for _, bucket in buckets.values():
                yield bucket


def _owners(bucket: Bucket) -> tuple[Owner, Owner]:
    return ("user", bucket.user), ("project", bucket.project)


def _waits_for(over: Over) -> Owner:
    return (over.scope, over.owner) if over.cohort is None else ("cohort", over.cohort)
