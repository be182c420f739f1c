"""How much of what there is is used, now and over time."""

from datetime import datetime
from typing import Literal

from cluster.models.base import Model

__all__ = ["Utilization", "UtilizationItem"]


class UtilizationItem(Model):
    """Of one node, group, project or user; of the whole cluster, or of those that one may not see."""

    name: str | None = None
    """None: the whole, or with `group_by` all those together that the asking person may not see."""
    value: float
    """The mean of the samples, in `Utilization.unit`."""
    peak: float
    """The highest of them."""
    busy: float | None = None
    """Of project or user, for gpu: how busy the devices are that they hold (0..1); None when nobody measures it."""


class Utilization(Model):
    """What is measured of nodes (`resource_group`: weighted by size); of projects and users what they hold."""

    resource: Literal["gpu", "cpu", "memory", "storage", "power", "temperature"]
    group_by: Literal["node", "project", "user", "resource_group"] | None = None
    unit: Literal["share", "bytes", "watts", "celsius"]
    """share: 0..1 of all there is; for project and user: the share of the cluster that their sessions hold."""
    since: datetime | None = None
    """The oldest sample; None when this is how it is now."""
    samples: int = 1
    items: list[UtilizationItem] = []
    """The highest first, at most 100; those that one may not see last."""
    total: int = 0
