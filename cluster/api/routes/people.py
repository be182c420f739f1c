"""Users, projects, quotas, images."""

from fastapi import APIRouter

from cluster.api.asking import Asking, TheCore
from cluster.models import Image, Page, Project, QuotaUse, User

router = APIRouter(tags=["people"])


@router.get("/v1/quotas")
async def quotas(core: TheCore, asking: Asking, user: str | None = None, project: str | None = None) -> Page[QuotaUse]:
    return await core.people.quotas(asking, user, project)


@router.get("/v1/users")
async def users(core: TheCore, asking: Asking) -> Page[User]:
    """Oneself and those one shares a project with; for an admin everybody."""
    return await core.people.users(asking)


@router.get("/v1/projects")
async def projects(core: TheCore, asking: Asking) -> Page[Project]:
    """Those that one is in; for an admin all."""
    return await core.people.projects(asking)


@router.get("/v1/images")
async def images(core: TheCore, _: Asking) -> Page[Image]:
    return await core.people.images()
