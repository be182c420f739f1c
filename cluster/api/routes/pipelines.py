"""Pipelines and their runs. What changes them are operations."""

from typing import Annotated

from fastapi import APIRouter, Query

from cluster.api.asking import Asking, TheCore
from cluster.models import Page, Pipeline, PipelineRun
from cluster.pipelines.reads import PipelineQuery, RunQuery

router = APIRouter(tags=["pipelines"])


@router.get("/v1/pipelines")
async def pipelines(core: TheCore, user: Asking, query: Annotated[PipelineQuery, Query()]) -> Page[Pipeline]:
    return await core.pipelines.pipelines(user, query)


@router.get("/v1/pipelines/{ref}")
async def pipeline(core: TheCore, user: Asking, ref: str, project: str | None = None) -> Pipeline:
    return await core.pipelines.pipeline(user, ref, project)


@router.get("/v1/pipeline-runs")
async def runs(core: TheCore, user: Asking, query: Annotated[RunQuery, Query()]) -> Page[PipelineRun]:
    return await core.pipelines.runs(user, query)


@router.get("/v1/pipeline-runs/{ref}")
async def run(core: TheCore, user: Asking, ref: str) -> PipelineRun:
    """By id; a pipeline's name stands for its latest run."""
    return await core.pipelines.run(user, ref)
