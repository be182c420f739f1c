"""Endpoints: deploying a model, moving an endpoint to another one, scaling, deleting.

Each changes what is wanted, and takes the first steps towards it in the same transaction, so that a preview shows
what starts where; the rest is the keeper's (`cluster.serving`).
"""

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Select, func, select

from cluster import access
from cluster.db.tables import EndpointRow, ModelRow, RevisionRow
from cluster.errors import NotFound
from cluster.models import (
    DeleteEndpoint,
    DeployModel,
    Effect,
    EndpointState,
    Launch,
    Reason,
    Recipe,
    ScaleEndpoint,
)
from cluster.operations.sessions import project_of
from cluster.sentence import Param, S, Sentence
from cluster.serving import steps, store
from cluster.serving.endpoints import Known, forget_failures, move, read
from cluster.serving.steps import Took
from cluster.transaction import Done, Refused, Transaction, nearest
from cluster.units import human_duration

INTERCHANGEABLE = frozenset({"vllm", "transformers"})
"""Runtimes that serve the same models."""


async def deploy(tx: Transaction, op: DeployModel) -> Done:
    """A new endpoint; or a new revision of the one that the project has under this name."""
    model = await _model(tx, op.model)
    launch = _launch(tx, model, op)
    name = op.name or _slug(model.name)
    row = await tx.db.scalar(_live().where(EndpointRow.name == name))
    if row is None:
        return await _create(tx, op, name, model, launch)
    if not access.sees(tx.user, row.owner, row.project) or (op.project is not None and op.project != row.project):
        message = S("The name {name} is taken by an endpoint of another project; give another name.", name=name)
        raise Refused(Reason(code="conflict", message=message))
    return await _update(tx, op, row, model, launch)


async def _create(tx: Transaction, op: DeployModel, name: str, model: ModelRow, launch: Launch) -> Done:
    row = EndpointRow(
        name=name,
        project=project_of(tx, op.project),
        owner=tx.user.name,
        resource_group=op.resource_group,
        replicas=1 if op.replicas is None else op.replicas,
        revision=1,
        state=EndpointState.ACTIVE.value,
        state_since=tx.now,
        reasons=[],
        measured={},
        failures=0,
        created=tx.now,
    )
    tx.db.add(row)
    await tx.db.flush()
    _revision(tx, row, 1, model, launch)
    await tx.db.flush()
    took = await _first_steps(tx, row)
    tx.event(
        "endpoint_created",
        name,
        S("{user} deployed {model} as {name}.", user=tx.user.name, model=model.name, name=name),
        owner=row.owner,
        project=row.project,
    )
    words: dict[str, Param] = {"name": name, "model": model.name, "project": row.project, "count": row.replicas}
    message = (
        S("Endpoint {name} serves {model} in project {project}, with 1 replica.", **words)
        if row.replicas == 1
        else S("Endpoint {name} serves {model} in project {project}, with {count} replicas.", **words)
    )
    return Done(
        effects=[Effect(kind="creates", target=name, message=message)],
        targets=[name],
        undo=S("undo deletes {name}.", name=name),
        inverse={"op": "delete_endpoint", "endpoint": name},
        sessions=took.made,
    )


async def _update(tx: Transaction, op: DeployModel, row: EndpointRow, model: ModelRow, launch: Launch) -> Done:
    """A rolling update. Undo moves it back, likewise."""
    _own(tx, row)
    _active(row)
    latest = await tx.db.scalar(select(func.max(RevisionRow.revision)).where(RevisionRow.endpoint == row.id)) or 0
    now = await tx.db.get_one(RevisionRow, (row.id, row.revision))
    same = now.model == model.name and now.launch == launch.model_dump(mode="json")
    wanted = row.replicas if op.replicas is None else op.replicas
    group = op.resource_group or row.resource_group
    if same and wanted == row.replicas and group == row.resource_group:
        message = S("{name} serves {model} that way already; nothing to do.", name=row.name, model=model.name)
        raise Refused(Reason(code="conflict", message=message))
    inverse = {"op": "_former_revision", "endpoint": row.id, "made": latest + 1, "revision": row.revision,
               "replicas": row.replicas, "resource_group": row.resource_group}  # fmt: skip
    _revision(tx, row, latest + 1, model, launch)
    await tx.db.flush()
    done = await _move_to(tx, row, latest + 1, wanted, group)
    done.undo = S("undo moves {name} back to {model}, replica by replica.", name=row.name, model=now.model)
    done.inverse = inverse
    return done


async def back_to(tx: Transaction, inverse: Mapping[str, Any]) -> Done:
    """Undo of an update: to the revision that it had, by a rolling update. Refused when it has yet another by now."""
    row = await to_put_back(tx, inverse["endpoint"])
    if row.revision != inverse["made"]:
        message = S(
            "{name} has revision {revision} by now; nothing is taken back.", name=row.name, revision=row.revision
        )
        raise Refused(Reason(code="conflict", message=message))
    return await _move_to(tx, row, inverse["revision"], inverse["replicas"], inverse["resource_group"])


async def _move_to(tx: Transaction, row: EndpointRow, revision: int, replicas: int, group: str | None) -> Done:
    """Set the revision that it is to have, and begin to move."""
    before = await tx.db.get_one(RevisionRow, (row.id, row.revision))
    after = await tx.db.get_one(RevisionRow, (row.id, revision))
    former = row.former if row.former is not None else row.revision
    row.former, row.updating = (former, tx.now) if former != revision else (row.revision, tx.now)
    row.revision, row.replicas, row.resource_group = revision, replicas, group
    forget_failures(row)
    await tx.db.flush()
    took = await _first_steps(tx, row)
    words: dict[str, Param] = {"name": row.name, "before": before.model, "after": after.model}
    tx.event(
        "endpoint_updating",
        row.name,
        S("{user} moves {name} to {after}.", user=tx.user.name, name=row.name, after=after.model),
        owner=row.owner,
        project=row.project,
    )
    message = S(
        "{name} moves from {before} to {after}, one replica after the other; requests are answered all the time.",
        **words,
    )
    return Done(
        effects=[Effect(kind="changes", target=row.name, message=message, owner=tx.other(row.owner)), *_drains(took)],
        targets=[row.name],
        sessions=took.made,
    )


async def scale(tx: Transaction, op: ScaleEndpoint) -> Done:
    """As many replicas as are asked for."""
    row = await to_change(tx, op.endpoint)
    before = row.replicas
    if before == op.replicas:
        message = S("{name} has {count} replicas already; nothing to do.", name=row.name, count=before)
        raise Refused(Reason(code="conflict", message=message))
    row.replicas = op.replicas
    await tx.db.flush()
    took = await _first_steps(tx, row)
    words: dict[str, Param] = {"name": row.name, "before": before, "after": op.replicas}
    said = S("{name} is scaled from {before} to {after} replicas.", **words)
    tx.event("endpoint_scaled", row.name, said, owner=row.owner, project=row.project)
    message = S("{name} is to have {after} replicas, not {before}.", **words)
    done = Done(
        effects=[Effect(kind="changes", target=row.name, message=message, owner=tx.other(row.owner)), *_drains(took)],
        targets=[row.name],
        undo=S("undo scales {name} to {before} again.", name=row.name, before=before),
        inverse={"op": "scale_endpoint", "endpoint": row.name, "replicas": before},
        sessions=took.made,
    )
    if not op.replicas:
        done.warnings.append(S("{name} answers no requests any more, until it is scaled up.", name=row.name))
    if row.autoscaling is not None:
        done.warnings.append(S("{name} scales itself; it may change this soon.", name=row.name))
    return done


async def delete(tx: Transaction, op: DeleteEndpoint) -> Done:
    """No requests from now on; what runs is answered, then the replicas are stopped."""
    row = await to_change(tx, op.endpoint)
    move(row, EndpointState.DELETING, tx.now)
    await tx.db.flush()
    took = await _first_steps(tx, row)
    said = S("{user} deleted {name}.", user=tx.user.name, name=row.name)
    tx.event("endpoint_deleting", row.name, said, "warning", owner=row.owner, project=row.project)
    age = human_duration((tx.now - row.created).total_seconds())
    message = S("Endpoint {name} takes no more requests and is deleted.", name=row.name)
    old = Effect(kind="lost", target=row.name, message=S("{name} is {age} old.", name=row.name, age=age), stable=False)
    gone = Effect(kind="removes", target=row.name, message=message, owner=tx.other(row.owner))
    return Done(
        effects=[gone, old, *_drains(took)],
        targets=[row.name],
        undo=S(
            "undo deploys {name} again, as it was; until its replicas are ready it can't be reached.", name=row.name
        ),
        inverse={"op": "_restore_endpoint", "endpoint": row.id},
    )


async def restore(tx: Transaction, ident: int) -> Done:
    """Undo of `delete`: from its last revision. Refused when the name is taken by now."""
    row = await tx.db.get(EndpointRow, ident)
    if row is None or row.state == EndpointState.ACTIVE:
        raise Refused(Reason(code="conflict", message=S("The endpoint is not deleted any more.")))
    _own(tx, row)
    other = await tx.db.scalar(_live().where(EndpointRow.name == row.name, EndpointRow.id != row.id))
    if other is not None:
        message = S("There is another endpoint {name} by now; delete it first.", name=row.name)
        raise Refused(Reason(code="conflict", message=message))
    move(row, EndpointState.ACTIVE, tx.now)
    forget_failures(row)
    row.former = row.updating = None
    await tx.db.flush()
    took = await _first_steps(tx, row)
    said = S("{user} deployed {name} again.", user=tx.user.name, name=row.name)
    tx.event("endpoint_restored", row.name, said, owner=row.owner, project=row.project)
    message = S("Endpoint {name} is deployed again, with {count} replicas.", name=row.name, count=row.replicas)
    effect = Effect(kind="restores", target=row.name, message=message)
    return Done(effects=[effect], targets=[row.name], sessions=took.made)


# ── what all of them need ────────────────────────────────────────────────────────────────────────


async def found(tx: Transaction, name: str) -> EndpointRow:
    """Among those that the asking person may see and that are not deleted. Raises `NotFound`."""
    rows = [r for r in await tx.db.scalars(_live()) if access.sees(tx.user, r.owner, r.project)]
    row = next((r for r in rows if r.name == name), None)
    if row is None:
        raise NotFound(S("There is no endpoint {name}.", name=name), nearest(name, [r.name for r in rows]))
    return row


async def to_change(tx: Transaction, name: str) -> EndpointRow:
    """An active one that is the asking person's to change. Raises `NotFound`, `NotAllowed` and `Refused`."""
    row = await found(tx, name)
    _own(tx, row)
    _active(row)
    return row


async def to_put_back(tx: Transaction, ident: int) -> EndpointRow:
    """The same for an undo. Refused when it is not there any more."""
    row = await tx.db.get(EndpointRow, ident)
    if row is None or row.state != EndpointState.ACTIVE:
        raise Refused(Reason(code="not_found", message=S("The endpoint is not there any more.")))
    _own(tx, row)
    return row


def _live() -> Select[EndpointRow]:
    return select(EndpointRow).where(EndpointRow.state != EndpointState.DELETED.value)


def _own(tx: Transaction, row: EndpointRow) -> None:
    access.must_own(tx.user, row.name, row.owner, row.project)


def _active(row: EndpointRow) -> None:
    if row.state != EndpointState.ACTIVE:
        raise Refused(Reason(code="conflict", message=S("{name} is being deleted already.", name=row.name)))


async def _first_steps(tx: Transaction, row: EndpointRow) -> Took:
    """What can be done at once."""
    known = await _known(tx, row)
    return await steps.take(tx, tx.core.serving.picture(known, tx.ledger))


async def _known(tx: Transaction, row: EndpointRow) -> Known:
    return next(iter(await read(tx.db, tx.now, row.id)))


def _drains(took: Took) -> list[Effect]:
    return [Effect(kind="stops", target=s.name, message=_emptied(s.name)) for s in took.drained]


def _emptied(name: str) -> Sentence:
    return S("{name} takes no new requests, and is stopped when it has answered those that it has.", name=name)


def _revision(tx: Transaction, row: EndpointRow, number: int, model: ModelRow, launch: Launch) -> None:
    told = launch.model_dump(mode="json")
    tx.db.add(RevisionRow(endpoint=row.id, revision=number, model=model.name, launch=told, created=tx.now))


def _slug(model: str) -> str:
    """`Qwen/Qwen3-8B` -> `Qwen3-8B`."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", model.rsplit("/", 1)[-1])[:63].strip("-._") or "model"


# ── the model ────────────────────────────────────────────────────────────────────────────────────


async def _model(tx: Transaction, name: str) -> ModelRow:
    """One that is ready, among those that the asking person may see."""
    row = await store.found(tx.db, tx.user, name)
    if row.state != store.READY:
        message = S("Model {name} is not ready: it is {state}.", name=row.name, state=row.state)
        raise Refused(Reason(code="conflict", message=message))
    return row


def _launch(tx: Transaction, row: ModelRow, op: DeployModel) -> Launch:
    """What a replica runs: as the model's recipe says, with what is asked for in its place."""
    recipe = Recipe.model_validate(row.recipe)
    changed = {key: value for key in ("gpu", "gpu_model") if (value := getattr(op, key)) is not None}
    if op.runtime is not None and op.runtime != recipe.runtime:
        changed |= _served_by(tx, row, recipe, op.runtime)
    if files := store.files_of(store.Places(tx.core.data_dir), row):
        changed |= {"files": files, "env": {"MODEL_PATH": files, **recipe.launch.env}}
    return recipe.launch.model_copy(update=changed)


def _served_by(tx: Transaction, row: ModelRow, recipe: Recipe, runtime: str) -> dict[str, Any]:
    """Of another runtime what differs, where both serve the same models; refused where they do not."""
    if not {recipe.runtime, runtime} <= INTERCHANGEABLE:
        words: dict[str, Param] = {"name": row.name, "runtime": recipe.runtime, "asked": runtime}
        message = S("Model {name} is served with {runtime}, not with {asked}; leave the runtime out.", **words)
        raise Refused(Reason(code="conflict", message=message, candidates=[recipe.runtime]))
    other = store.Places(tx.core.data_dir).book().launch(runtime)
    return {"command": other.command, "image": other.image, "health": other.health, "ready_within": other.ready_within}
