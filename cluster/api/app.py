"""The REST API. Thin: who asks, the typed query or body, and one call of the core. Errors are RFC 9457 documents."""

from fastapi import FastAPI
from starlette.datastructures import State

from cluster.api.limits import Bounded, Streams
from cluster.api.problems import MOST_BODY, add_problems
from cluster.api.routes import (
    agents,
    diagnosis,
    endpoints,
    happenings,
    login,
    metrics,
    models,
    nodes,
    operations,
    people,
    pipelines,
    sessions,
    storage,
    tokens,
    uploads,
)
from cluster.api.routes import cluster as whole
from cluster.api.schema import describe, operation_id
from cluster.core import Core
from cluster.enrolment import Enrolment

ROUTERS = (
    whole,
    sessions,
    nodes,
    storage,
    uploads,
    people,
    tokens,
    login,
    models,
    endpoints,
    pipelines,
    diagnosis,
    happenings,
    metrics,
    operations,
    agents,
)


def state_of(core: Core) -> State:
    """What the routes find in `request.app.state`."""
    return State({"core": core, "enrolment": Enrolment(core), "streams": Streams(happenings.STREAMS)})


def create_app(core: Core) -> FastAPI:
    """The API of `core`, for uvicorn or in process."""
    app = FastAPI(
        title="Helmsman cluster",
        version="1",
        docs_url=None,  # its pages would fetch their scripts from elsewhere
        redoc_url=None,
        generate_unique_id_function=operation_id,
    )
    app.state = state_of(core)
    add_problems(app)
    app.add_middleware(Bounded, most=MOST_BODY, own=(f"{endpoints.SERVE}/", "/v1/uploads"))
    for module in ROUTERS:
        app.include_router(module.router)
    app.mount(endpoints.SERVE, endpoints.serve)
    describe(app)
    return app
