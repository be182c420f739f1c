"""Users, projects, quotas, images."""

from fastapi import APIRouter

from cluster.api.asking import Asking, TheCore
from cluster.models import Image, Page, Project, QuotaUse, User

router = APIRouter(tags=["people"])


@router.get("/v1/quotas")
async def quotas(core: TheCore, asking: Asking, user: str | None = None, project: str | None = None) -> Page[QuotaUse]:
    return await core.people.quotas(asking, user, project)


@router.get("/v1/users")
async def users(core: TheCore, _: Asking) -> Page[User]:
    return await core.people.users()


@router.get("/v1/projects")
async def projects(core: TheCore, _: Asking) -> Page[Project]:
    return await core.people.projects()


@router.get("/v1/images")
async def images(core: TheCore, _: Asking) -> Page[Image]:
    return await core.people.images()
