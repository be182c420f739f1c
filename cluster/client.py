"""The one client of the cluster's API, over HTTP or in process (the transport of `http` decides)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from cluster import errors, transfer
from cluster.models import (
    AuditEntry,
    ClusterStatus,
    Diagnosis,
    Endpoint,
    EstimateStart,
    Event,
    Explanation,
    FilePage,
    Folder,
    Image,
    JournalCheck,
    LogPage,
    Names,
    NewToken,
    Node,
    Operation,
    OperationRequest,
    Outcome,
    Page,
    Pipeline,
    PipelineRun,
    Project,
    QuotaUse,
    ResourceGroup,
    ScalingDecision,
    Session,
    StartEstimate,
    StoredModel,
    Token,
    TokenMade,
    User,
    Utilization,
)
from cluster.sentence import S, Sentence

M = TypeVar("M", bound=BaseModel)
Query = str | int | float | bool | None

_ERRORS: dict[str, type[errors.ClusterError]] = {
    kind.code: kind
    for kind in (
        errors.NotFound,
        errors.Ambiguous,
        errors.NotAllowed,
        errors.NotAuthenticated,
        errors.Invalid,
        errors.Conflict,
        errors.StorageFull,
        errors.Unavailable,
        errors.TooMany,
    )
}


class Client:
    """Calls as one user. Every method raises a `ClusterError` (`Unavailable` when the server doesn't answer)."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    @classmethod
    def connect(cls, url: str, token: str, transport: httpx.AsyncBaseTransport | None = None) -> "Client":
        """`transport`: e.g. `httpx.ASGITransport(app)` for in-process."""
        headers = {"Authorization": f"Bearer {token}"}
        timeout = httpx.Timeout(30, connect=3)
        return cls(httpx.AsyncClient(base_url=url, headers=headers, transport=transport, timeout=timeout))

    async def close(self) -> None:
        await self._http.aclose()

    # ── reads ────────────────────────────────────────────────────────────────────────────────────

    async def whoami(self) -> User:
        return await self._get("/v1/me", User)

    async def status(self) -> ClusterStatus:
        return await self._get("/v1/status", ClusterStatus)

    async def names(self) -> Names:
        return await self._get("/v1/names", Names)

    async def sessions(self, **query: Query) -> Page[Session]:
        """`status`, `type`, `project`, `user`, `node`, `resource_group`, `idle`, `sort_by`, `order`, `limit` (50).

        Without `status`: those that have not ended. `status="pending"` includes held ones.
        """
        return await self._get("/v1/sessions", Page[Session], **query)

    async def session(self, ref: str) -> Session:
        """By id, or by name (the live one, else the latest)."""
        return await self._get(f"/v1/sessions/{_part(ref)}", Session)

    async def logs(self, ref: str, tail: int | None = 100, offset: int | None = None) -> LogPage:
        """The last `tail` lines, or everything from `offset` bytes on (at most 256 KiB)."""
        return await self._get(f"/v1/sessions/{_part(ref)}/logs", LogPage, tail=tail, offset=offset)

    async def explain(self, ref: str) -> Explanation:
        return await self._get(f"/v1/sessions/{_part(ref)}/explanation", Explanation)

    async def estimate(self, ask: EstimateStart) -> StartEstimate:
        """When such a session would start; nothing is submitted."""
        return _read(await self.send("POST", "/v1/estimates", ask), StartEstimate)

    async def utilization(self, **query: Query) -> Utilization:
        """`resource`, `group_by`, `period` (seconds back; without it: how it is now)."""
        return await self._get("/v1/utilization", Utilization, **query)

    async def nodes(self, **query: Query) -> Page[Node]:
        """`status`, `resource_group`, `gpu_model`, `sort_by`, `order`, `limit` (50)."""
        return await self._get("/v1/nodes", Page[Node], **query)

    async def node(self, ref: str) -> Node:
        return await self._get(f"/v1/nodes/{_part(ref)}", Node)

    async def diagnosis(self, target: str | None = None) -> Diagnosis:
        """What is wrong with a node, an endpoint or a session; with everything when left out."""
        return await self._get("/v1/diagnosis", Diagnosis, target=target)

    async def resource_groups(self) -> Page[ResourceGroup]:
        return await self._get("/v1/resource-groups", Page[ResourceGroup])

    async def folders(self, **query: Query) -> Page[Folder]:
        """`project`, `user`, `trashed` (false), `sort_by` (name, size, modified), `order`, `limit` (50)."""
        return await self._get("/v1/folders", Page[Folder], **query)

    async def pipelines(self, **query: Query) -> Page[Pipeline]:
        """`project`, `limit` (50); each with its latest run."""
        return await self._get("/v1/pipelines", Page[Pipeline], **query)

    async def pipeline(self, ref: str, project: str | None = None) -> Pipeline:
        """With its whole definition."""
        return await self._get(f"/v1/pipelines/{_part(ref)}", Pipeline, project=project)

    async def pipeline_runs(self, **query: Query) -> Page[PipelineRun]:
        """The latest first, without their steps. `pipeline`, `project`, `user`, `state`, `limit` (50)."""
        return await self._get("/v1/pipeline-runs", Page[PipelineRun], **query)

    async def pipeline_run(self, ref: str) -> PipelineRun:
        """By id, or the latest of a pipeline's; with its steps."""
        return await self._get(f"/v1/pipeline-runs/{_part(ref)}", PipelineRun)

    async def models(self, **query: Query) -> Page[StoredModel]:
        """`query` (a part of its name, source, licence, language or tags), `limit` (50); without their cards' texts."""
        return await self._get("/v1/models", Page[StoredModel], **query)

    async def model(self, ref: str) -> StoredModel:
        """By name, or by what it was installed from (`org/name`)."""
        return await self._get(f"/v1/models/{'/'.join(map(_part, ref.split('/')))}", StoredModel)

    async def files(self, folder: str, path: str = "", **query: Query) -> FilePage:
        """What is in a directory of a folder (`name`, or `project/name`); `sort_by`, `order`, `offset`, `limit`."""
        name, which = transfer.parted(folder)
        return await self._get(f"/v1/folders/{_part(name)}/files", FilePage, path=path or None, **which, **query)

    async def upload(self, folder: str, source: Path, path: str | None = None) -> int:
        """Put a file into a folder, at `path` there; goes on when the connection breaks. Returns its bytes."""
        return await transfer.upload(self._sent, folder, source, path or source.name)

    async def download(self, folder: str, path: str, target: Path) -> int:
        """Fetch a file of a folder to `target`; goes on when the connection breaks. Returns its bytes."""
        name, which = transfer.parted(folder)
        url = f"/v1/folders/{_part(name)}/files/{quote(path)}"

        @asynccontextmanager
        async def stream(headers: dict[str, str]) -> AsyncIterator[httpx.Response]:
            async with self._http.stream("GET", url, params=which, headers=headers) as reply:
                if not reply.is_success:
                    await reply.aread()
                    raise _problem(reply)
                yield reply

        return await transfer.download(stream, target)

    async def quotas(self, **query: Query) -> Page[QuotaUse]:
        """`user`, `project`; without either, those of the asking person and of their projects."""
        return await self._get("/v1/quotas", Page[QuotaUse], **query)

    async def users(self) -> Page[User]:
        return await self._get("/v1/users", Page[User])

    async def projects(self) -> Page[Project]:
        return await self._get("/v1/projects", Page[Project])

    async def tokens(self, user: str | None = None) -> Page[Token]:
        """One's own API tokens, without what makes them one; an admin may ask for those of `user` ("" the agents')."""
        return await self._get("/v1/tokens", Page[Token], user=user)

    async def make_token(self, wanted: NewToken) -> TokenMade:
        """A new token; it is in this answer and nowhere else."""
        return _read(await self.send("POST", "/v1/tokens", wanted), TokenMade)

    async def revoke_token(self, ident: str) -> None:
        """It opens nothing from now on."""
        await self.send("DELETE", f"/v1/tokens/{_part(ident)}", None)

    async def images(self) -> Page[Image]:
        return await self._get("/v1/images", Page[Image])

    async def endpoints(self, **query: Query) -> Page[Endpoint]:
        """By name. `project`, `limit` (50)."""
        return await self._get("/v1/endpoints", Page[Endpoint], **query)

    async def endpoint(self, name: str) -> Endpoint:
        """With its replicas, why they wait, and the autoscaler's last decisions."""
        return await self._get(f"/v1/endpoints/{_part(name)}", Endpoint)

    async def decisions(self, endpoint: str, limit: int = 50) -> Page[ScalingDecision]:
        """The autoscaler's about an endpoint, newest first, with all that each followed from."""
        return await self._get(f"/v1/endpoints/{_part(endpoint)}/decisions", Page[ScalingDecision], limit=limit)

    async def audit(self, **query: Query) -> Page[AuditEntry]:
        """Newest first. `user`, `action`, `result`, `since`, `before` (an audit id), `limit` (50)."""
        return await self._get("/v1/audit", Page[AuditEntry], **query)

    async def verify_audit(self, newest: str | None = None, known: str | None = None) -> JournalCheck:
        """Whether the journal is whole; `newest` and `known`: an audit id and its hash as they were kept elsewhere."""
        return await self._get("/v1/audit/verify", JournalCheck, newest=newest, known=known)

    async def events(self, after: int = 0, limit: int = 200, **query: Query) -> Page[Event]:
        """Those with `seq > after`, oldest first; `after=-1`: the newest `limit`. `target`, `severity`, `since`."""
        return await self._get("/v1/events", Page[Event], after=after, limit=limit, **query)

    async def follow_events(self, after: int = 0, **query: Query) -> AsyncIterator[Event]:
        """As they happen (server-sent events); ends when the connection does. `target`, `severity`, `since`."""
        params = {"after": after} | {k: v for k, v in query.items() if v is not None}
        async with self._http.stream("GET", "/v1/events/stream", params=params, timeout=None) as reply:
            if not reply.is_success:
                await reply.aread()
                raise _problem(reply)
            async for line in reply.aiter_lines():
                if line.startswith("data: "):
                    yield Event.model_validate_json(line[6:])

    # ── writes ───────────────────────────────────────────────────────────────────────────────────

    async def preview(self, operation: Operation) -> Outcome:
        """What `operation` would do, from the real code path; nothing changes."""
        return await self._operate(OperationRequest(operation=operation, dry_run=True))

    async def execute(self, operation: Operation, key: str | None = None, expect: str | None = None) -> Outcome:
        """Do it once (`key`), and only if the previewed effects still hold (`expect`)."""
        return await self._operate(OperationRequest(operation=operation, key=key, expect=expect))

    # ── plumbing ─────────────────────────────────────────────────────────────────────────────────

    async def _operate(self, request: OperationRequest) -> Outcome:
        reply = await self.send("POST", "/v1/operations", request)
        return _read(reply, Outcome)

    async def _get(self, path: str, shape: type[M], /, **query: Query) -> M:
        reply = await self.send("GET", path, None, **query)
        return _read(reply, shape)

    async def _sent(
        self, method: str, path: str, headers: dict[str, str], content: AsyncIterator[bytes] | None
    ) -> httpx.Response:
        """A request with headers and a body of its own."""
        try:
            reply = await self._http.request(method, path, headers=headers, content=content)
        except httpx.TransportError as e:
            raise errors.unreachable(str(self._http.base_url), str(e) or type(e).__name__) from e
        if not reply.is_success:
            raise _problem(reply)
        return reply

    async def send(self, method: str, path: str, body: BaseModel | None, /, **query: Query) -> httpx.Response:
        """One request; a problem document becomes the error it names."""
        params = {k: v for k, v in query.items() if v is not None}
        content = body.model_dump_json() if body else None
        headers = {"Content-Type": "application/json"} if body else None
        try:
            reply = await self._http.request(method, path, params=params, content=content, headers=headers)
        except httpx.TransportError as e:
            raise errors.unreachable(str(self._http.base_url), str(e) or type(e).__name__) from e
        if not reply.is_success:
            raise _problem(reply)
        return reply


def _part(name: str) -> str:
    """`name` as one part of a path, whatever it holds. One that could not be is a name that nothing has."""
    if name in ("", ".", "..") or "/" in name:
        raise errors.NotFound(S("Nothing is called {name}.", name=name or '""'))
    return quote(name, safe="")


def _read(reply: httpx.Response, shape: type[M]) -> M:
    try:
        return TypeAdapter(shape).validate_json(reply.content)
    except ValidationError as e:
        raise errors.Unavailable(
            S(
                "The answer of {url} can't be read: its server is of another version. Restart it with `helmsman down` "
                "and `helmsman up`.",
                url=str(reply.url),
            )
        ) from e


def _problem(reply: httpx.Response) -> errors.ClusterError:
    """The error that an RFC 9457 document stands for (our extension members: `code`, `sentence`, `candidates`)."""
    try:
        body = reply.json()
        sentence = Sentence.model_validate(body["sentence"])
        kind = _ERRORS.get(body["code"], errors.ClusterError)
        return kind(sentence, body.get("candidates"))
    except (ValueError, KeyError):
        return errors.ClusterError(
            S(
                "The server answered {status} to {path}; its log says why.",
                status=reply.status_code,
                path=reply.url.path,
            )
        )
