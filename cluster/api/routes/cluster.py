"""The whole: who asks, how the cluster is, every name."""

from typing import Annotated

from fastapi import APIRouter, Query

from cluster.api.asking import Asking, TheCore
from cluster.models import ClusterStatus, Names, User, Utilization
from cluster.utilization import UtilizationQuery

router = APIRouter(tags=["cluster"])


@router.get("/v1/me")
async def me(user: Asking) -> User:
    return user


@router.get("/v1/status")
async def status(core: TheCore, user: Asking) -> ClusterStatus:
    return await core.reads.status(user)


@router.get("/v1/names")
async def names(core: TheCore, user: Asking) -> Names:
    return await core.reads.names(user)


@router.get("/v1/utilization")
async def utilization(core: TheCore, user: Asking, query: Annotated[UtilizationQuery, Query()]) -> Utilization:
    return await core.history.utilization(user, query)
