"""The model store."""

from typing import Annotated

from fastapi import APIRouter, Query

from cluster.api.asking import Asking, TheCore
from cluster.models import Page, StoredModel
from cluster.serving.store import ModelQuery

router = APIRouter(tags=["models"])


@router.get("/v1/models")
async def models(core: TheCore, user: Asking, query: Annotated[ModelQuery, Query()]) -> Page[StoredModel]:
    """By name; without the text of their cards."""
    return await core.models.all(user, query)


@router.get("/v1/models/{ref:path}")
async def model(core: TheCore, user: Asking, ref: str) -> StoredModel:
    """By name, or by what it was installed from."""
    return await core.models.one(user, ref)
