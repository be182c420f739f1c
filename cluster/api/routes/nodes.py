"""Nodes and resource groups."""

from typing import Annotated

from fastapi import APIRouter, Query

from cluster.api.asking import Asking, TheCore
from cluster.models import Node, Page, ResourceGroup
from cluster.reads import NodeQuery

router = APIRouter(tags=["nodes"])


@router.get("/v1/nodes")
async def nodes(core: TheCore, user: Asking, query: Annotated[NodeQuery, Query()]) -> Page[Node]:
    return await core.reads.nodes(user, query)


@router.get("/v1/nodes/{ref}")
async def node(core: TheCore, user: Asking, ref: str) -> Node:
    return await core.reads.node(user, ref)


@router.get("/v1/resource-groups")
async def resource_groups(core: TheCore, user: Asking) -> Page[ResourceGroup]:
    return await core.reads.resource_groups(user)
