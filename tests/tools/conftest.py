"""A small cluster in memory behind the real client's names, and a context to ask it with."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings

from cluster.client import Client
from cluster.errors import NotFound
from cluster.models import (
    Allocation,
    AuditEntry,
    ClusterStatus,
    CordonNode,
    Device,
    Event,
    Explanation,
    Folder,
    Image,
    LogPage,
    Names,
    Node,
    NodeStatus,
    Operation,
    Outcome,
    Page,
    Project,
    QuotaUse,
    Reason,
    ResourceGroup,
    Resources,
    S,
    Session,
    SessionState,
    User,
)
from tools.base import Context
from tools.words import speaker

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")

NOW = datetime.fromisoformat("2026-03-02T09:00:00+09:00")
GIB = 2**30


def session(name: str, id_: str, state: str = "running", **more: Any) -> Session:
    held = Resources(cpu=8, memory=64 * GIB, gpu=more.pop("gpu", 2))
    place = [Allocation(node="a100-03", cpu=8, memory=64 * GIB, devices={2: 1.0, 3: 1.0})] if state == "running" else []
    started = NOW - timedelta(hours=3) if state == "running" else None
    return Session(
        id=id_,
        name=name,
        state=SessionState(state),
        user=more.pop("user", "alice"),
        project="vision",
        resources=held,
        resource_group="train",
        submitted=NOW - timedelta(hours=4),
        started=started,
        allocations=place,
        **more,
    )


def node(name: str, status: str = "alive", gpu: float = 8) -> Node:
    devices = [Device(index=i, model="A100-80G", used=float(i < 4), utilization=0.5) for i in range(int(gpu))]
    return Node(
        name=name,
        resource_group="train",
        status=NodeStatus(status),
        capacity=Resources(cpu=128, memory=1024 * GIB, gpu=gpu),
        free=Resources(cpu=64, memory=512 * GIB, gpu=gpu / 2),
        gpu_model="A100-80G",
        devices=devices,
        temperature=61,
        sessions=["resnet-sweep"],
        last_beat=NOW,
    )


class FakeClient(Client):
    """Answers from lists; remembers what it was asked. `outcome` is what an operation comes to."""

    def __init__(self) -> None:
        self.sessions_list = [
            session("resnet-sweep", "s-7f3a", idle=True, gpu_utilization=0.03),
            session("vit-large", "s-91bc", "pending", user="minho", gpu=16),
            session("bert-tune", "s-1a2b", user="minho"),
            session("llama-ft-01", "s-2c01"),
            session("llama-ft-02", "s-2c02", "terminated"),
            session("nightly", "s-3d01", "terminated"),
            session("nightly", "s-3d02"),
            session("twins", "s-4e01"),
            session("twins", "s-4e02", user="bob"),
        ]
        self.nodes_list = [node(f"a100-0{i}") for i in range(1, 5)] + [node("gpu-01"), node("gpu-02", "cordoned")]
        self.asked: list[dict[str, Any]] = []
        self.operations: list[Operation] = []
        self.outcome: Callable[[Operation, bool], Outcome] = lambda o, dry: Outcome(
            operation=o, dry_run=dry, digest="d1"
        )
        self.error: Exception | None = None
        self.fresh: Names | None = None

    def run(self, name: str, hours: float | None) -> None:
        """Add a session that has run so long, or waits."""
        started = NOW - timedelta(hours=hours) if hours is not None else None
        self.sessions_list.append(session(name, f"s-{name}").model_copy(update={"started": started}))

    def _check(self) -> None:
        if self.error:
            raise self.error

    async def sessions(self, **query: Any) -> Page[Session]:
        self._check()
        self.asked.append(query)
        fits = [s for s in self.sessions_list if s.state.value not in ("terminated", "error", "cancelled")]
        if query.get("user"):
            fits = [s for s in fits if s.user == query["user"]]
        return Page(items=fits[: query.get("limit", 50)], total=len(fits))

    async def session(self, ref: str) -> Session:
        self._check()
        for s in self.sessions_list:
            if ref in (s.id, s.name):
                return s
        raise NotFound(S("There is no session {name}.", name=ref), ["resnet-sweep"])

    async def logs(self, ref: str, tail: int | None = 100, offset: int | None = None) -> LogPage:
        self._check()
        return LogPage(session=ref, text="epoch 1\n[red]not markup[/red]\n", next_offset=10, finished=False)

    async def explain(self, ref: str) -> Explanation:
        s = await self.session(ref)
        why = S(
            "{asked} GPUs asked, at most {available} free on one node of {group}.",
            asked=16.0,
            available=4.0,
            group="train",
        )
        reasons = [Reason(code="insufficient_resources", message=why, asked=16, available=4)]
        waits = s.state is SessionState.PENDING
        return Explanation(session=s, reasons=reasons if waits else [], ahead=["bert-tune"] if waits else [])

    async def nodes(self, **query: Any) -> Page[Node]:
        self._check()
        return Page(items=self.nodes_list[: query.get("limit", 50)], total=len(self.nodes_list))

    async def node(self, ref: str) -> Node:
        return next(n for n in self.nodes_list if n.name == ref)

    async def status(self) -> ClusterStatus:
        self._check()
        return ClusterStatus(
            name="riverside",
            now=NOW,
            simulated=True,
            nodes={"alive": 5, "cordoned": 1},
            sessions={"running": 6, "pending": 1},
            capacity=Resources(cpu=768, memory=6144 * GIB, gpu=48),
            free=Resources(cpu=384, memory=3072 * GIB, gpu=24),
            longest_wait=7200,
        )

    async def folders(self, **query: Any) -> Page[Folder]:
        made = {"created": NOW - timedelta(days=9), "modified": NOW - timedelta(hours=5)}
        items = [Folder(name="imagenet", project="vision", owner="alice", size=int(1.2 * 2**40), quota=2**41, **made)]
        return Page(items=items, total=1)

    async def names(self) -> Names:
        return self.fresh or names_of(self)

    async def resource_groups(self) -> Page[ResourceGroup]:
        return Page(
            items=[ResourceGroup(name="train", policy="drf", nodes=4), ResourceGroup(name="serve", nodes=2)], total=2
        )

    async def quotas(self, **query: Any) -> Page[QuotaUse]:
        self.asked.append(query)
        return Page(items=[QuotaUse(scope="user", name="alice", gpu=8, used=Resources(gpu=8))], total=1)

    async def users(self) -> Page[User]:
        users = [User(name="alice", projects=["vision"]), User(name="minho", role="admin", projects=["nlp"])]
        return Page(items=users, total=2)

    async def projects(self) -> Page[Project]:
        return Page(items=[Project(name="vision", users=["alice"]), Project(name="nlp", users=["minho"])], total=2)

    async def images(self) -> Page[Image]:
        return Page(items=[Image(name="pytorch:2.8-cuda12"), Image(name="jax:0.5")], total=2)

    async def audit(self, **query: Any) -> Page[AuditEntry]:
        entry = AuditEntry(
            id="a-17",
            at=NOW,
            user="alice",
            action="cordon_node",
            operation=CordonNode(node="gpu-02"),
            targets=["gpu-02"],
        )
        return Page(items=[entry], total=1)

    async def events(self, after: int = 0, limit: int = 200, **query: Any) -> Page[Event]:
        said = [("lost", "error", "a100-03", 2), ("start", "info", "bert-tune", 30)]
        items = [
            Event(
                seq=i, at=NOW - timedelta(hours=h), kind=k, severity=v, target=t, message=S("{name} was lost.", name=t)
            )
            for i, (k, v, t, h) in enumerate(reversed(said))
        ]
        start = datetime.fromisoformat(query["since"]) if query.get("since") else None
        items = [e for e in items if query.get("target") in (None, e.target)]
        items = [e for e in items if query.get("severity") in (None, e.severity) and (start is None or e.at >= start)]
        return Page(items=items, total=len(items))

    async def preview(self, operation: Operation) -> Outcome:
        self._check()
        self.operations.append(operation)
        return self.outcome(operation, True)

    async def execute(self, operation: Operation, key: str | None = None, expect: str | None = None) -> Outcome:
        self._check()
        self.operations.append(operation)
        return self.outcome(operation, False)


def names_of(client: FakeClient) -> Names:
    return Names(
        sessions={s.id: s.name for s in client.sessions_list},
        nodes=[n.name for n in client.nodes_list],
        users=["alice", "minho", "jiwoo", "bob"],
        projects=["vision", "nlp"],
        folders=["imagenet", "checkpoints"],
        trashed_folders=["old-logs"],
        images=["pytorch:2.8-cuda12", "jax:0.5"],
        resource_groups=["train", "serve"],
        gpu_models=["A100-80G", "L40S"],
    )


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def context(client: FakeClient) -> Callable[..., Context]:
    """Build a context: `context(language="ko")`, `context(user="bob")` …"""

    def build(**changes: Any) -> Context:
        language = changes.get("language", "en")
        facts: dict[str, Any] = {"user": "alice", "now": NOW, "names": names_of(client), "language": language}
        return Context(client=client, say=speaker(language), **(facts | changes))

    return build


@pytest.fixture
def ctx(context: Callable[..., Context]) -> Context:
    return context()
