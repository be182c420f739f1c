"""Folders."""

from typing import Annotated

from fastapi import APIRouter, Query

from cluster.api.asking import Asking, TheCore
from cluster.models import Folder, Page
from cluster.storage.reads import FolderQuery

router = APIRouter(tags=["storage"])


@router.get("/v1/folders")
async def folders(core: TheCore, user: Asking, query: Annotated[FolderQuery, Query()]) -> Page[Folder]:
    return await core.folders.folders(user, query)
