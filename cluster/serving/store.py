"""The model store: which models there are, and where their files lie.

DATA/models/<name>              a model's files, complete
DATA/models/.incoming/<name>    while they are fetched
DATA/models/.removed/…          on their way out
DATA/recipes/*.yaml             an admin's own recipes
"""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from cluster import access
from cluster.db.tables import EndpointRow, ModelRow, RevisionRow
from cluster.errors import NotFound
from cluster.models import Card, EndpointState, Page, Reason, Recipe, StoredModel, User
from cluster.sentence import S
from cluster.serving import recipes
from cluster.serving.recipes import Book
from cluster.transaction import nearest

if TYPE_CHECKING:
    from cluster.core import Core

INSTALLING, READY, FAILED = "installing", "ready", "failed"


class Places:
    """Where what is, under the cluster's data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.top = data_dir / "models"
        self.recipes = data_dir / "recipes"

    def model(self, name: str) -> Path:
        return self.top / name

    def incoming(self, name: str) -> Path:
        return self.top / ".incoming" / name

    def removed(self, name: str) -> Path:
        return self.top / ".removed" / name

    def book(self) -> Book:
        """All recipes. Blocks a little. Raises `Invalid` for a file of the admin's with mistakes."""
        own = sorted(self.recipes.glob("*.yaml")) if self.recipes.is_dir() else []
        return recipes.book(own) if own else recipes.shipped()


class ModelQuery(BaseModel):
    """Filters of GET /v1/models."""

    model_config = ConfigDict(extra="forbid")

    query: str | None = Field(default=None, max_length=200)
    """A part of its name, source, licence, language or tags."""
    limit: int = Field(default=50, ge=1, le=1000)


class Models:
    """What can be asked of the store, filtered by what the asking person may see."""

    def __init__(self, core: "Core") -> None:
        self._core = core

    async def all(self, user: User, query: ModelQuery) -> Page[StoredModel]:
        """By name, without the cards' texts."""
        async with self._core.db.read() as db:
            rows = [row for row in await db.scalars(select(ModelRow).order_by(ModelRow.name)) if sees(user, row)]
            serving = await served(db)
        fitting = [row for row in rows if query.query is None or _fits(row, query.query)]
        items = [self._shown(row, serving[row.name], user) for row in fitting[: query.limit]]
        for item in items:
            item.card.text = ""
        return Page(items=items, total=len(fitting))

    async def one(self, user: User, ref: str) -> StoredModel:
        """By name, or by what it was installed from. Raises `NotFound`."""
        async with self._core.db.read() as db:
            row = await found(db, user, ref)
            serving = await served(db)
        return self._shown(row, serving[row.name], user)

    async def names(self, user: User) -> list[str]:
        async with self._core.db.read() as db:
            return sorted(row.name for row in await db.scalars(select(ModelRow)) if sees(user, row))

    def _shown(self, row: ModelRow, endpoints: Iterable[tuple[str, str, str]], user: User) -> StoredModel:
        return StoredModel(
            name=row.name,
            owner=row.owner,
            project=row.project,
            source=row.source,
            runtime=Recipe.model_validate(row.recipe).runtime,
            card=Card.model_validate(row.card),
            size=row.size,
            state=row.state,
            reasons=[Reason.model_validate(reason) for reason in row.reasons],
            created=row.created,
            endpoints=sorted(name for name, owner, project in endpoints if access.sees(user, owner, project)),
            progress=self._core.installs.progress(row),
        )


def sees(user: User, row: ModelRow) -> bool:
    """Everybody's, and those of one's projects."""
    return row.project is None or access.sees(user, row.owner, row.project)


async def found(db: AsyncSession, user: User, ref: str) -> ModelRow:
    """By name, else by what it was installed from, among those that the person may see. Raises `NotFound`."""
    rows = [row for row in await db.scalars(select(ModelRow)) if sees(user, row)]
    fitting = [row for row in rows if row.name == ref] or [row for row in rows if row.source == ref]
    if not fitting:
        raise NotFound(S("There is no model {name}.", name=ref), nearest(ref, [row.name for row in rows]))
    return fitting[0]


def files_of(places: Places, row: ModelRow) -> str | None:
    """The directory with its files; None when its command brings its own model.

    By where it was had from, which a folder's own `recipe.yaml` can't say, other than `MODEL_PATH`.
    """
    source = Recipe.model_validate(row.recipe).source
    if source is None or source.startswith("/"):
        return source
    return str(places.model(row.name))


async def served(db: AsyncSession) -> defaultdict[str, list[tuple[str, str, str]]]:
    """Model -> endpoints (name, owner, project) that have it, or are moving to it or from it."""
    moving = or_(RevisionRow.revision == EndpointRow.revision, RevisionRow.revision == EndpointRow.former)
    query = (
        select(RevisionRow.model, EndpointRow.name, EndpointRow.owner, EndpointRow.project)
        .join(EndpointRow, EndpointRow.id == RevisionRow.endpoint)
        .where(EndpointRow.state != EndpointState.DELETED.value, moving)
        .distinct()
    )
    endpoints: defaultdict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for model, name, owner, project in await db.execute(query):
        endpoints[model].append((name, owner, project))
    return endpoints


def _fits(row: ModelRow, query: str) -> bool:
    card = Card.model_validate(row.card)
    said = [row.name, row.source, card.license or "", card.base_model or "", *card.languages, *card.tags]
    return all(word in " ".join(said).lower() for word in query.lower().split())
