"""Sessions whose quota is used up stand aside, so that a pass does not look at them until something is given back.

What is asked for decides: of an owner's buckets those that ask for the same go aside and come back together.
"""

from collections import defaultdict
from collections.abc import Iterator

from cluster.scheduler.queue import Amounts, Bucket, Lane
from cluster.scheduler.quota import Owner, Quotas

Buckets = dict[int, tuple[Lane, Bucket]]
ByAmounts = dict[Amounts, Buckets]


class Parking:
    """The buckets in line, by owner, and those that stand aside, by whose quota they wait for; each by what it asks."""

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas
        self._lined: defaultdict[Owner, ByAmounts] = defaultdict(dict)
        self._aside: defaultdict[Owner, ByAmounts] = defaultdict(dict)

    def joined(self, lane: Lane, bucket: Bucket) -> None:
        """A bucket is new."""
        for owner in _owners(bucket):
            _put(self._lined[owner], lane, bucket)
        self.look(lane, bucket)

    def left(self, bucket: Bucket) -> None:
        """A bucket is empty and gone."""
        if bucket.aside is not None:
            _drop(self._aside, bucket.aside, bucket)
            return
        for owner in _owners(bucket):
            _drop(self._lined, owner, bucket)

    def look(self, lane: Lane, bucket: Bucket) -> None:
        """Let the bucket stand aside if its quota is used up. What others have borrowed of it is its right to claim."""
        if bucket.aside is not None:
            return
        over = self._quotas.over(bucket.user, bucket.project, bucket.amounts)
        if over and not all(each.lent for each in over):
            self._put_aside(lane, bucket, over[0].holder)

    def taken(self, user: str, project: str) -> None:
        """They hold more now."""
        for owner in (("user", user), ("project", project)):
            if not self._quotas.limited(*owner):
                continue
            for amounts, buckets in [*self._lined.get(owner, {}).items()]:
                if self._quotas.exceeds(owner, amounts):
                    for lane, bucket in [*buckets.values()]:
                        self._put_aside(lane, bucket, owner)

    def given(self, user: str, project: str) -> None:
        """They hold less now: what waited for that lines up again."""
        owners = [("user", user), ("project", project)]
        if cohort := self._quotas.cohort(project):
            owners.append(("cohort", cohort))
        for owner in owners:
            for amounts in [*self._aside.get(owner, {})]:
                if not self._quotas.exceeds(owner, amounts):
                    self._call(owner, amounts)

    def changed(self) -> None:
        """The limits are others now."""
        for owner, asked in [*self._aside.items()]:
            for amounts in [*asked]:
                self._call(owner, amounts)
        for asked in [*self._lined.values()]:
            for buckets in [*asked.values()]:
                for lane, bucket in [*buckets.values()]:
                    self.look(lane, bucket)

    def _put_aside(self, lane: Lane, bucket: Bucket, owner: Owner) -> None:
        for each in _owners(bucket):
            _drop(self._lined, each, bucket)
        _put(self._aside[owner], lane, bucket)
        lane.put_aside(bucket, owner)

    def _call(self, owner: Owner, amounts: Amounts) -> None:
        buckets = self._aside[owner].pop(amounts)
        if not self._aside[owner]:
            del self._aside[owner]
        for lane, bucket in buckets.values():
            lane.put_back(bucket)
            self.joined(lane, bucket)

    def in_line(self, user: str, project: str) -> Iterator[Bucket]:
        """Their buckets that do not stand aside and ask for more than is left of a quota of theirs."""
        for owner in (("user", user), ("project", project)):
            if self._quotas.limited(*owner):
                for amounts, buckets in self._lined.get(owner, {}).items():
                    if self._quotas.exceeds(owner, amounts):
                        yield from (bucket for _, bucket in buckets.values())

    def aside(self) -> Iterator[Bucket]:
        """Those that stand aside."""
        for asked in self._aside.values():
            for buckets in asked.values():
                yield from (bucket for _, bucket in buckets.values())


def _owners(bucket: Bucket) -> tuple[Owner, Owner]:
    return ("user", bucket.user), ("project", bucket.project)


def _put(asked: ByAmounts, lane: Lane, bucket: Bucket) -> None:
    asked.setdefault(bucket.amounts, {})[id(bucket)] = lane, bucket


def _drop(where: dict[Owner, ByAmounts], owner: Owner, bucket: Bucket) -> None:
    asked = where[owner]
    del asked[bucket.amounts][id(bucket)]
    if not asked[bucket.amounts]:
        del asked[bucket.amounts]
        if not asked:
            del where[owner]
