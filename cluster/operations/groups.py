"""How a resource group orders and places what waits."""

from cluster import access
from cluster.db.tables import GroupRow
from cluster.errors import NotFound
from cluster.models import Effect, Reason, SetSchedulingPolicy
from cluster.scheduler import checked_policy, checked_selector
from cluster.scheduler.state import Group
from cluster.sentence import S, Sentence
from cluster.transaction import Done, Refused, Transaction, nearest

_SAID = {
    "policy": Sentence(text="{group} orders its queue by {value} now, not by {before}."),
    "selector": Sentence(text="{group} places new sessions by {value} now, not by {before}."),
}
_SWITCHED = {
    ("backfill", True): Sentence(
        text="In {group} smaller sessions may now pass a waiting one that they do not delay (backfill)."
    ),
    ("backfill", False): Sentence(text="In {group} nothing passes a waiting session any more (no backfill)."),
    ("preemption", True): Sentence(
        text="In {group} sessions of lower priority that may be stopped now make room for higher ones."
    ),
    ("preemption", False): Sentence(text="In {group} no session makes room for another any more (no preemption)."),
}


async def set_policy(tx: Transaction, op: SetSchedulingPolicy) -> Done:
    """Change what is given of policy, selector, backfill and preemption; refused when it is so already."""
    access.must_be_admin(tx.user)
    row = await tx.db.get(GroupRow, op.resource_group)
    if row is None:
        known = tx.core.directory.groups
        message = S("There is no resource group {name}.", name=op.resource_group)
        raise NotFound(message, nearest(op.resource_group, known))
    wanted = op.model_dump(exclude={"op", "resource_group"}, exclude_none=True)
    if "policy" in wanted:
        checked_policy(wanted["policy"])
    if "selector" in wanted:
        checked_selector(wanted["selector"])
    before = {name: getattr(row, name) for name, value in wanted.items() if getattr(row, name) != value}
    if not before:
        message = S("{group} is scheduled that way already; nothing to do.", group=row.name)
        raise Refused(Reason(code="conflict", message=message))
    for name in before:
        setattr(row, name, wanted[name])
    await tx.db.flush()
    tx.core.outlook.suppose(Group(row.name, row.policy, row.selector, row.backfill, row.preemption))
    effects = [_effect(row.name, name, wanted[name], old) for name, old in before.items()]
    message = S("{user} changed how {group} is scheduled.", user=tx.user.name, group=row.name)
    tx.event("group_changed", row.name, message)
    return Done(
        effects=effects,
        targets=[row.name],
        undo=S("undo schedules {group} as before.", group=row.name),
        inverse={"op": "set_scheduling_policy", "resource_group": row.name, **before},
    )


def _effect(group: str, name: str, value: str | bool, before: str | bool) -> Effect:
    if isinstance(value, bool):
        message = _SWITCHED[name, value].model_copy(update={"params": {"group": group}})
    else:
        said = {"group": group, "value": value, "before": str(before)}
        message = _SAID[name].model_copy(update={"params": said})
    return Effect(kind="changes", target=group, message=message)
