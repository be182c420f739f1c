"""The REST API. Thin: who asks, the typed query or body, and one call of the core. Errors are RFC 9457 documents."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Query, Request
from sse_starlette.sse import EventSourceResponse

from cluster.api.limits import Bounded
from cluster.api.problems import MOST_BODY, add_problems
from cluster.core import Core
from cluster.enrolment import Enrolment
from cluster.errors import NotAllowed, NotAuthenticated
from cluster.models import (
    AuditEntry,
    Beat,
    BeatReply,
    ClusterStatus,
    EstimateStart,
    Event,
    Explanation,
    Folder,
    Image,
    LogPage,
    Names,
    Node,
    NodeInfo,
    OperationRequest,
    Outcome,
    Page,
    Project,
    QuotaUse,
    Registered,
    ResourceGroup,
    Session,
    StartEstimate,
    User,
)
from cluster.reads import FolderQuery, NodeQuery, SessionQuery
from cluster.sentence import S


async def _core(request: Request) -> Core:
    core: Core = request.app.state.core
    return core


TheCore = Annotated[Core, Depends(_core)]


async def _owner(core: TheCore, authorization: Annotated[str, Header()] = "") -> str:
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise NotAuthenticated(S("This needs a token: send it as `Authorization: Bearer …`."))
    return await core.owner_of(token)


async def _user(core: TheCore, owner: Annotated[str, Depends(_owner)]) -> User:
    if not owner:
        raise NotAllowed(S("The agents' token can't be used for this."))
    return await core.user(owner)


async def _agent(owner: Annotated[str, Depends(_owner)]) -> None:
    if owner:
        raise NotAllowed(S("Only agents may call this."))


Asking = Annotated[User, Depends(_user)]
Limit = Annotated[int, Query(ge=1, le=1000)]


def create_app(core: Core) -> FastAPI:
    """The API of `core`, for uvicorn or in process."""
    app = FastAPI(title="Helmsman cluster", version="1", docs_url=None, redoc_url=None)
    app.state.core = core
    add_problems(app)
    app.add_middleware(Bounded, most=MOST_BODY)
    _reads(app)
    _people(app)
    _happenings(app)
    _operations(app)
    _agents(app)
    return app


def _reads(app: FastAPI) -> None:
    @app.get("/v1/me")
    async def me(user: Asking) -> User:
        return user

    @app.get("/v1/status")
    async def status(core: TheCore, user: Asking) -> ClusterStatus:
        return await core.reads.status(user)

    @app.get("/v1/names")
    async def names(core: TheCore, user: Asking) -> Names:
        return await core.reads.names(user)

    @app.get("/v1/sessions")
    async def sessions(core: TheCore, user: Asking, query: Annotated[SessionQuery, Query()]) -> Page[Session]:
        return await core.reads.sessions(user, query)

    @app.get("/v1/sessions/{ref}")
    async def session(core: TheCore, user: Asking, ref: str) -> Session:
        return await core.reads.session(user, ref)

    @app.get("/v1/sessions/{ref}/logs")
    async def logs(
        core: TheCore,
        user: Asking,
        ref: str,
        tail: Annotated[int | None, Query(ge=1, le=100_000)] = None,
        offset: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    ) -> LogPage:
        return await core.reads.logs(user, ref, tail, offset)

    @app.get("/v1/sessions/{ref}/explanation")
    async def explanation(core: TheCore, user: Asking, ref: str) -> Explanation:
        return await core.reads.explain(user, ref)

    @app.post("/v1/estimates")
    async def estimate(core: TheCore, user: Asking, ask: EstimateStart) -> StartEstimate:
        """When such a session would start; nothing is submitted."""
        return await core.reads.estimate(user, ask)

    @app.get("/v1/nodes")
    async def nodes(core: TheCore, user: Asking, query: Annotated[NodeQuery, Query()]) -> Page[Node]:
        return await core.reads.nodes(user, query)

    @app.get("/v1/nodes/{ref}")
    async def node(core: TheCore, user: Asking, ref: str) -> Node:
        return await core.reads.node(user, ref)

    @app.get("/v1/resource-groups")
    async def resource_groups(core: TheCore, user: Asking) -> Page[ResourceGroup]:
        return await core.reads.resource_groups(user)


def _people(app: FastAPI) -> None:
    @app.get("/v1/folders")
    async def folders(core: TheCore, user: Asking, query: Annotated[FolderQuery, Query()]) -> Page[Folder]:
        return await core.reads.folders(user, query)

    @app.get("/v1/quotas")
    async def quotas(
        core: TheCore, asking: Asking, user: str | None = None, project: str | None = None
    ) -> Page[QuotaUse]:
        return await core.reads.quotas(asking, user, project)

    @app.get("/v1/users")
    async def users(core: TheCore, _: Asking) -> Page[User]:
        return await core.reads.users()

    @app.get("/v1/projects")
    async def projects(core: TheCore, _: Asking) -> Page[Project]:
        return await core.reads.projects()

    @app.get("/v1/images")
    async def images(core: TheCore, _: Asking) -> Page[Image]:
        return await core.reads.images()


def _happenings(app: FastAPI) -> None:
    @app.get("/v1/audit")
    async def audit(
        core: TheCore, asking: Asking, user: str | None = None, action: str | None = None, limit: Limit = 50
    ) -> Page[AuditEntry]:
        return await core.reads.audit(asking, user, action, limit)

    @app.get("/v1/events")
    async def events(
        core: TheCore, user: Asking, after: Annotated[int, Query(ge=-1, le=2**53)] = 0, limit: Limit = 200
    ) -> Page[Event]:
        return await core.reads.events(user, after, limit)

    @app.get("/v1/events/stream")
    async def stream(
        core: TheCore, user: Asking, after: Annotated[int, Query(ge=0, le=2**53)] = 0
    ) -> EventSourceResponse:
        return EventSourceResponse(_follow(core, user, after))


async def _follow(core: Core, user: User, after: int) -> AsyncIterator[dict[str, Any]]:
    """Events as they are committed; waits in between."""
    while True:
        page = await core.reads.events(user, after, 200)
        for event in page.items:
            after = event.seq
            yield {"id": str(event.seq), "event": event.kind, "data": event.model_dump_json()}

        async def more(seen: int = after) -> bool:
            return bool((await core.reads.events(user, seen, 1)).items)

        await core.wait_for(more, 15)


def _operations(app: FastAPI) -> None:
    @app.post("/v1/operations")
    async def operate(core: TheCore, user: Asking, request: OperationRequest) -> Outcome:
        """Do it, or with `dry_run` show what it would do. A refusal is an outcome with reasons, not an error."""
        return await core.execute(user, request)


def _agents(app: FastAPI) -> None:
    enrolment = Enrolment(app.state.core)

    @app.post("/v1/agents/register", dependencies=[Depends(_agent)])
    async def register(core: TheCore, info: NodeInfo) -> Registered:
        registered = await enrolment.admit(info)
        await core.agents.register(info)
        return registered

    @app.post("/v1/agents/{node}/beat", dependencies=[Depends(_agent)])
    async def beat(core: TheCore, node: str, beat: Beat) -> BeatReply:
        await enrolment.check(node, beat.secret)
        return await core.agents.beat(node, beat)
