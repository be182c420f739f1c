"""What users and projects may use. The preview asks the scheduler who waits for it, and who may start."""

from typing import Any

from cluster import access
from cluster.consequences import People, told
from cluster.db.tables import ProjectRow, QuotaRow
from cluster.directory import Directory
from cluster.models import Effect, Reason, SetQuota
from cluster.operations.people import find_project, find_user, tidy
from cluster.sentence import S, Sentence
from cluster.transaction import Done, Refused, Transaction
from cluster.units import human_size

LIMITS = ("cpu", "memory", "gpu", "storage", "sessions", "borrow_cpu", "borrow_memory", "borrow_gpu")
_SIZES = ("memory", "storage", "borrow_memory")
_SAID = {
    "cpu": Sentence(text="{name} may use {limit} cores (before: {before})."),
    "memory": Sentence(text="{name} may use {limit} of memory (before: {before})."),
    "gpu": Sentence(text="{name} may use {limit} GPUs (before: {before})."),
    "storage": Sentence(text="{name} may store {limit} (before: {before})."),
    "sessions": Sentence(text="{name} may have {limit} sessions at a time (before: {before})."),
    "borrow_cpu": Sentence(text="{name} may borrow {limit} cores of its cohort (before: {before})."),
    "borrow_memory": Sentence(text="{name} may borrow {limit} of memory of its cohort (before: {before})."),
    "borrow_gpu": Sentence(text="{name} may borrow {limit} GPUs of its cohort (before: {before})."),
}


async def set_quota(tx: Transaction, op: SetQuota) -> Done:
    """Change what is given; refused when it is so already."""
    scope, name = await _whose(tx, op)
    access.must_may(tx.user, "limit", scope)
    _sensible(op, scope)
    held = set(tx.core.outlook.plan(tx.now).held)
    row = await tx.db.get(QuotaRow, (scope, name))
    if row is None:
        row = QuotaRow(scope=scope, name=name)
        tx.db.add(row)
    before = _apply(row, op)
    project = await tx.db.get(ProjectRow, name) if scope == "project" else None
    regrouped = _regroup(project, op)
    if not before and regrouped is None:
        message = S("The quota of {name} is so already; nothing to do.", name=name)
        raise Refused(Reason(code="conflict", message=message))
    await tx.db.flush()
    tx.core.outlook.imagine(await tx.db.run_sync(Directory.load))
    effects = [_changed(name, limit, getattr(row, limit), old) for limit, old in before.items()]
    if regrouped is not None:
        effects.append(_moved(name, project.cohort if project else None))
    said = S("{admin} changed the quota of {name}.", admin=tx.user.name, name=name)
    tx.event("quota_changed", name, said, **{"owner" if scope == "user" else "project": name})
    return Done(
        effects=[*effects, *_held(tx, held)],
        targets=[name],
        warnings=_over(tx, row),
        undo=S("undo gives {name} the former quota back.", name=name),
        inverse={"op": "set_quota", scope: name, **_back(before, regrouped)},
    )


async def _whose(tx: Transaction, op: SetQuota) -> tuple[str, str]:
    if (op.user is None) == (op.project is None):
        message = S("Say whose quota it is: a user's or a project's, one of the two.")
        raise Refused(Reason(code="invalid", message=message))
    if op.user is not None:
        return "user", (await find_user(tx, op.user)).name
    return "project", (await find_project(tx, op.project or "")).name


def _sensible(op: SetQuota, scope: str) -> None:
    given = {limit for limit in LIMITS if getattr(op, limit) is not None}
    both = sorted(given & set(op.unlimited))
    if both:
        message = S("{what} can't have a limit and none at the same time.", what=", ".join(both))
        raise Refused(Reason(code="invalid", message=message))
    if not given and not op.unlimited and op.cohort is None:
        message = S("Say what is limited: GPUs, cores, memory, storage or sessions.")
        raise Refused(Reason(code="invalid", message=message))
    lent = sorted(limit for limit in given | set(op.unlimited) if limit.startswith("borrow_"))
    if scope == "user" and (lent or op.cohort is not None):
        raise Refused(Reason(code="invalid", message=S("Only projects lend and borrow; users have no cohort.")))


def _apply(row: QuotaRow, op: SetQuota) -> dict[str, Any]:
    """Change the row; what of it was different, with its former value."""
    wanted = {limit: getattr(op, limit) for limit in LIMITS if getattr(op, limit) is not None}
    wanted |= dict.fromkeys(op.unlimited)
    before = {limit: getattr(row, limit) for limit in LIMITS if limit in wanted}
    for limit, value in wanted.items():
        setattr(row, limit, value)
    return {limit: old for limit, old in before.items() if old != wanted[limit]}


def _regroup(project: ProjectRow | None, op: SetQuota) -> str | None:
    """Put the project into the cohort that is asked for; its former one ("" for none), None when nothing changed."""
    if project is None or op.cohort is None or (wanted := tidy(op.cohort) or None) == project.cohort:
        return None
    former, project.cohort = project.cohort or "", wanted
    return former


def _back(before: dict[str, Any], regrouped: str | None) -> dict[str, Any]:
    """The arguments of the operation that restores them."""
    inverse: dict[str, Any] = {limit: old for limit, old in before.items() if old is not None}
    free = [limit for limit, old in before.items() if old is None]
    inverse |= {"unlimited": free} if free else {}
    return inverse | ({"cohort": regrouped} if regrouped is not None else {})


# ── what it means ────────────────────────────────────────────────────────────────────────────────


def _changed(name: str, limit: str, value: float | None, old: float | None) -> Effect:
    params: dict[str, Any] = {"name": name, "limit": _amount(limit, value), "before": _amount(limit, old)}
    return Effect(kind="changes", target=name, message=_SAID[limit].model_copy(update={"params": params}))


def _amount(limit: str, value: float | None) -> str:
    if value is None:
        return "∞"
    return human_size(int(value)) if limit in _SIZES else f"{value:g}"


def _moved(name: str, cohort: str | None) -> Effect:
    message = (
        S("{name} lends to and borrows from the projects of cohort {cohort}.", name=name, cohort=cohort)
        if cohort
        else S("{name} is in no cohort any more: it neither lends nor borrows.", name=name)
    )
    return Effect(kind="changes", target=name, message=message)


def _held(tx: Transaction, before: set[str]) -> list[Effect]:
    """Who is held back from now on, and who no more; the scheduler's plan on the new limits says so."""
    people = People(tx.ledger, tx.user)
    after = set(tx.core.outlook.plan(tx.now).held)
    touched: dict[str, Effect] = {}
    for ident in sorted(after - before):
        message = S("{name}, which waits, is held back by the quota.", name=people.name(ident))
        touched[ident] = people.effect("held", ident, message)
    for ident in sorted(before - after):
        if ident in tx.ledger.sessions:
            message = S("{name} is not held back any more.", name=people.name(ident))
            touched[ident] = people.effect("sooner", ident, message)
    return told(touched, people)


def _over(tx: Transaction, row: QuotaRow) -> list[Sentence]:
    """What is used above the new limits: what runs goes on, and what is stored stays."""
    use = tx.core.people.use_of(tx.ledger, row)
    warnings = [
        S("{name} uses {used} GPUs, more than the new limit: what runs goes on, nothing new starts.", name=row.name,
          used=f"{use.used.gpu:g}") if _above(use.used.gpu, row.gpu) else None,
        S("{name} uses {used} cores, more than the new limit: what runs goes on, nothing new starts.", name=row.name,
          used=f"{use.used.cpu:g}") if _above(use.used.cpu, row.cpu) else None,
        S("{name} uses {used} of memory, more than the new limit: what runs goes on, nothing new starts.",
          name=row.name, used=human_size(use.used.memory)) if _above(use.used.memory, row.memory) else None,
        S("{name} has {used} sessions, more than the new limit: what runs goes on, nothing new starts.",
          name=row.name, used=use.used_sessions) if _above(use.used_sessions, row.sessions) else None,
    ]  # fmt: skip
    return [warning for warning in warnings if warning is not None]


def _above(used: float, limit: float | None) -> bool:
    return limit is not None and used > limit
