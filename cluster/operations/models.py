"""Models of the store: installing one, and taking that back. What comes from the hub comes in the background
(`serving/install.py`); everything else is there at once."""

import asyncio
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from cluster import access
from cluster.db.tables import ModelRow
from cluster.errors import Ambiguous, NotFound
from cluster.models import Card, Effect, InstallModel, Launch, Reason, Recipe
from cluster.operations.sessions import project_of
from cluster.sentence import S, Sentence
from cluster.serving import cards, recipes
from cluster.serving.install import recipe_for
from cluster.serving.recipes import Book, LaunchSpec
from cluster.serving.store import FAILED, INSTALLING, READY, Places, sees, served
from cluster.storage.volumes import checked
from cluster.transaction import Done, Refused, Transaction, nearest
from cluster.units import human_size

HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
HUB_URL = re.compile(r"^https?://(?:www\.)?(?:huggingface\.co|hf\.co)/", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be installed."""

    name: str
    source: str
    recipe: Recipe
    card: Card
    size: int = 0
    fetched: bool = False
    """It comes from the hub."""
    pickles: tuple[str, ...] = ()


async def install(tx: Transaction, op: InstallModel) -> Done:
    """By recipe, folder or hub id: ready at once, or in the background."""
    project = _for_whom(tx, op.project)
    plan = await _plan(tx, op.recipe.strip())
    await _free(tx, plan)
    row = ModelRow(
        name=plan.name,
        owner=tx.user.name,
        project=project,
        source=plan.source,
        recipe=plan.recipe.model_dump(mode="json"),
        card=plan.card.model_dump(mode="json"),
        size=plan.size,
        state=INSTALLING if plan.fetched else READY,
        state_since=tx.now,
        reasons=[],
        created=tx.now,
    )
    tx.db.add(row)
    await tx.db.flush()
    tx.core.installs.look_again()
    said = S("{user} installs model {name} from {source}.", user=tx.user.name, name=plan.name, source=plan.source)
    tx.event("model_installed", plan.name, said, owner=row.owner, project=row.project)
    return Done(
        effects=[Effect(kind="creates", target=plan.name, message=message) for message in _told(plan, project)],
        targets=[plan.name],
        warnings=_warnings(plan),
        undo=S("undo removes {name}.", name=plan.name),
        inverse={"op": "_uninstall_model", "model": plan.name, "created": tx.now.isoformat()},
    )


async def uninstall(tx: Transaction, name: str, created: str) -> Done:
    """Undo of `install`: its row, and its files if the store has them. Refused while an endpoint serves it."""
    row = await tx.db.get(ModelRow, name)
    if row is None or row.created.isoformat() != created:
        raise Refused(Reason(code="not_found", message=S("The model is not there any more.")))
    access.must_own(tx.user, row.name, row.owner, row.project or "")
    endpoints = sorted(endpoint for endpoint, _, _ in (await served(tx.db))[name])
    if endpoints:
        message = S("{name} is served by {endpoints}; delete them first.", name=name, endpoints=", ".join(endpoints))
        raise Refused(Reason(code="conflict", message=message, ahead=endpoints))
    await tx.db.delete(row)
    await tx.db.flush()
    places = Places(tx.core.data_dir)
    away = f"{name}-{int(tx.now.timestamp())}"
    tx.on_disk(lambda _: _move(places.model(name), places.removed(away)),
               lambda _: _move(places.removed(away), places.model(name)))  # fmt: skip
    tx.core.installs.look_again()
    said = S("{user} removed model {name}.", user=tx.user.name, name=name)
    tx.event("model_removed", name, said, owner=row.owner, project=row.project)
    message = S("Model {name} is removed from the store ({size}).", name=name, size=human_size(row.size))
    return Done(effects=[Effect(kind="removes", target=name, message=message)], targets=[name])


def _move(source: Path, target: Path) -> None:
    """By a rename; nothing there is fine. What is removed goes for good when the server starts next."""
    if source.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        source.rename(target)


def _for_whom(tx: Transaction, wanted: str | None) -> str | None:
    """The project whose members see it; None: everybody, which only an admin may say."""
    return None if wanted is None and access.is_admin(tx.user) else project_of(tx, wanted)


async def _free(tx: Transaction, plan: Plan) -> None:
    """The name is; one that could not be installed makes room for another try."""
    row = await tx.db.get(ModelRow, plan.name)
    if row is None:
        return
    if not sees(tx.user, row):
        message = S("The name {name} is taken by a model of another project.", name=plan.name)
        raise Refused(Reason(code="conflict", message=message))
    if row.state == FAILED and access.owns(tx.user, row.owner, row.project or ""):
        await tx.db.delete(row)
        await tx.db.flush()
        return
    words = {"name": row.name, "source": row.source}
    message = (
        S("Model {name} is being installed already, from {source}.", **words)
        if row.state == INSTALLING
        else S("There is a model {name} already, from {source}.", **words)
    )
    raise Refused(Reason(code="conflict", message=message, candidates=[row.name]))


# ── what is meant ────────────────────────────────────────────────────────────────────────────────


async def _plan(tx: Transaction, text: str) -> Plan:
    """A recipe's name, a directory, a folder, or a hub id: the first that it is."""
    places = Places(tx.core.data_dir)
    book = await asyncio.to_thread(places.book)
    ref = HUB_URL.sub("", text).strip("/") if HUB_URL.match(text) else text
    named = book.models.get(ref.lower()) or next((r for r in book.models.values() if r.source == ref), None)
    if named is not None:
        return await _named(tx, named)
    if text.startswith("/"):
        access.must_be_admin(tx.user)
        return await _directory(tx, places, Path(text), Path(text).name, text)
    folder = await _folder(tx, text)
    if folder is not None:
        return folder
    if HUB_ID.fullmatch(ref) and ".." not in ref and "--" not in ref:
        return _hub(ref, book)
    raise NotFound(
        S("{name} is no recipe, no folder of yours and no hub id, which is written org/name.", name=text),
        nearest(text, book.models),
    )


async def _named(tx: Transaction, recipe: Recipe) -> Plan:
    if recipe.source is None:  # its command brings its own model
        env = {"PYTHON": sys.executable} if recipe.runtime == "g" else {}
        launch = recipe.launch.model_copy(update={"env": env | recipe.launch.env})
        return Plan(recipe.name, recipe.name, recipe.model_copy(update={"launch": launch}), recipe.card)
    if recipe.source.startswith("/"):
        return await _directory(tx, Places(tx.core.data_dir), Path(recipe.source), recipe.name, recipe.source, recipe)
    return Plan(recipe.name, recipe.source, recipe, recipe.card, fetched=True)


def _hub(ident: str, book: Book) -> Plan:
    """How it is served follows from its files, when they are there."""
    name = ident.rsplit("/", 1)[1]
    recipe = Recipe(name=name, runtime="vllm", source=ident, launch=book.launch("vllm"))
    return Plan(name, ident, recipe, Card(), fetched=True)


async def _folder(tx: Transaction, text: str) -> Plan | None:
    """One of the storage that the asking person may read; None when there is none of the name."""
    if tx.volumes is None:
        return await _simulated_folder(tx, text)
    try:
        row = await tx.folder(text)
    except Ambiguous:
        raise
    except NotFound:
        return None
    if row.state != "ready":
        message = S("Folder {name} can't be used yet: it is {state}.", name=row.name, state=row.state)
        raise Refused(Reason(code="conflict", message=message))
    places, place = Places(tx.core.data_dir), tx.volumes.path(row.project, row.name)
    return await _directory(tx, places, place, row.name, f"{row.project}/{row.name}")


async def _simulated_folder(tx: Transaction, text: str) -> Plan | None:
    """In a simulated cluster a folder is a row, and nothing is known of what is in it."""
    try:
        row = await tx.folder(text)
    except NotFound:
        return None
    recipe = Recipe(name=row.name, runtime="vllm", launch=recipes.shipped().launch("vllm"))
    return Plan(row.name, f"{row.project}/{row.name}", recipe, Card(), row.size)


async def _directory(
    tx: Transaction, places: Places, place: Path, name: str, source: str, recipe: Recipe | None = None
) -> Plan:
    """A model whose files are there and stay there."""
    try:
        name = checked(name)
        found = await asyncio.to_thread(cards.look, place)
        own = await asyncio.to_thread(recipes.of_folder, place)
    except (OSError, ValueError) as e:  # ValueError: a null byte in its name
        why = getattr(e, "strerror", None) or str(e)
        message = S("{path} can't be read: {why}.", path=repr(str(place)).strip("'"), why=why)
        raise Refused(Reason(code="not_found", message=message)) from e
    if recipe is not None:
        launch = recipe.launch.model_copy(update={"env": {"MODEL_PATH": str(place), **recipe.launch.env}})
        made = recipe.model_copy(update={"launch": launch})
    elif own is not None and (own.runtime or own.launch.command):
        made = _own(places.book(), own.runtime or "command", own.launch, name, place)
    else:
        blank = Recipe(name=name, runtime="vllm", source=str(place), launch=Launch(command=":"))
        made = recipe_for(tx.core, places, blank, found, place)
    card = cards.merged(recipe.card if recipe else Card(), found.card)
    return Plan(name, source, made, card, found.size, pickles=tuple(found.pickles))


def _own(book: Book, runtime: str, own: LaunchSpec, name: str, place: Path) -> Recipe:
    """As its own `recipe.yaml` says."""
    launch = book.launch(runtime, own)
    launch = launch.model_copy(update={"env": {"MODEL_PATH": str(place), **launch.env}})
    return Recipe.model_validate({"name": name, "runtime": runtime, "source": str(place), "launch": launch})


# ── words ────────────────────────────────────────────────────────────────────────────────────────


def _told(plan: Plan, project: str | None) -> list[Sentence]:
    words = {"name": plan.name, "source": plan.source, "runtime": plan.recipe.runtime}
    if plan.fetched:
        first = S("{source} is fetched from the hub in the background, as model {name}.", **words)
    elif plan.size:
        first = S("Model {name} ({size}) is served from {source} with {runtime}.", size=human_size(plan.size), **words)
    else:
        first = S("Model {name} is there at once; {runtime} serves it.", **words)
    whom = (
        S("Everybody can deploy {name}.", name=plan.name)
        if project is None
        else S("Members of project {project} can deploy {name}.", name=plan.name, project=project)
    )
    return [first, whom]


def _warnings(plan: Plan) -> list[Sentence]:
    found = []
    if plan.pickles:
        file, count = plan.pickles[0], len(plan.pickles)
        found.append(S("It has files that can run code when they are read ({file}, {count} in all).", file=file,
                       count=count))  # fmt: skip
    if "gated" in plan.card.tags and plan.fetched:
        found.append(S("It is given only to those who have agreed to its licence at the hub (HF_TOKEN)."))
    if plan.recipe.runtime == "command" and not plan.fetched and not plan.recipe.launch.env.get("MODEL_FILE"):
        found.append(S("It is served by a command of its own: {command}", command=plan.recipe.launch.command[:300]))
    return found
