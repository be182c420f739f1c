"""Pure scheduling: `plan(snapshot) -> Plan` decides, `feasible(snapshot, request)` says whether it could ever run."""

from cluster.scheduler.feasible import feasible
from cluster.scheduler.fleet import matches_model
from cluster.scheduler.planner import plan
from cluster.scheduler.queue import POLICIES
from cluster.scheduler.selectors import SELECTORS

__all__ = ["POLICIES", "SELECTORS", "feasible", "matches_model", "plan"]
