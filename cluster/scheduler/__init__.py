"""Pure scheduling: `plan(board or snapshot) -> Plan` decides, `feasible(…, request)` says whether it could ever run."""

from cluster.scheduler.board import Board
from cluster.scheduler.feasible import feasible
from cluster.scheduler.fleet import matches_model
from cluster.scheduler.plan import Plan
from cluster.scheduler.planner import plan
from cluster.scheduler.queue import POLICIES
from cluster.scheduler.queue import checked as checked_policy
from cluster.scheduler.selectors import SELECTORS
from cluster.scheduler.selectors import selector as checked_selector

__all__ = [
    "POLICIES",
    "SELECTORS",
    "Board",
    "Plan",
    "checked_policy",
    "checked_selector",
    "feasible",
    "matches_model",
    "plan",
]
