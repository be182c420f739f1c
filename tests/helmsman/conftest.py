"""A toy cluster behind the real tools' shapes: nodes and folders that W and D change, and that move meanwhile."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cluster.client import Client
from cluster.models import ClusterStatus, Names, Reason, Resources, S, User
from helmsman.desk import Desk, open_desk
from helmsman.events import Event
from helmsman.models.scripted import Line, ScriptedModel, Wish
from helmsman.session import Session
from helmsman.settings import Settings
from tools.base import Arguments, Card, Context, ReadingTool, Result, Risk, Tool
from tools.kinds import FolderName, NewName, NodeName
from tools.registry import Registry
from tools.views import Plan, Text


class Toy(Client):
    """What it did stands in a file, one key a line, so that it outlives the process."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.state = "as it was"
        self.nodes_there = ["a100-01", "a100-02", "cpu-01"]
        self.folders_there = ["old-data"]
        self.before_effect: Callable[[], None] = lambda: None
        self.after_effect: Callable[[], None] = lambda: None
        self.fails: list[str] = []
        """Things that refuse to be changed."""
        self.away = 0
        """How many of the next replies get lost after the effect."""

    @property
    def done(self) -> list[str]:
        """What was done, in order: "cordon_node a100-01"."""
        return [json.loads(line)["what"] for line in self.file.read_text().splitlines()] if self.file.exists() else []

    async def whoami(self) -> User:
        return User(name="minho")

    async def status(self) -> ClusterStatus:
        now, none = datetime.now(UTC), Resources()
        return ClusterStatus(name="toy", now=now, simulated=True, nodes={}, sessions={}, capacity=none, free=none)

    async def names(self) -> Names:
        return Names(nodes=self.nodes_there, folders=self.folders_there, users=["minho", "jiwoo"])

    def do(self, what: str, key: str | None) -> None:
        """Once per key, like the real one."""
        self.before_effect()
        keys = [json.loads(line)["key"] for line in self.file.read_text().splitlines()] if self.file.exists() else []
        if key not in keys:
            with self.file.open("a") as file:
                file.write(json.dumps({"what": what, "key": key}) + "\n")
        self.after_effect()


class NoArguments(Arguments):
    pass


class NodeArguments(Arguments):
    node: NodeName


class FolderArguments(Arguments):
    folder: FolderName


class NewFolderArguments(Arguments):
    name: NewName


def toy(ctx: Context) -> Toy:
    assert isinstance(ctx.client, Toy)
    return ctx.client


def result(text: str, status: Any = "done", **more: Any) -> Result:
    return Result(status=status, data=more.pop("data", {}), view=Text(text=text), answer=text, **more)


class ToyList(ReadingTool[NoArguments]):
    """List nodes."""

    name = "list_nodes"
    arguments = NoArguments

    async def read(self, ctx: Context, args: NoArguments) -> Result:
        nodes = toy(ctx).nodes_there
        return result(f"{len(nodes)} nodes", data={"nodes": list(nodes)}, rows=nodes, rows_of="node")


class Change(Tool[Any]):
    """Base of what changes the toy: previewed, refused when the toy moved, done once per key."""

    risk = Risk.W

    def target(self, args: Any) -> str:
        return str(next(iter(args.given().values())))

    async def preview(self, ctx: Context, args: Any) -> Card:
        if self.target(args) in toy(ctx).fails:
            return Card(plan=None, digest="", refusal=result(f"{self.target(args)} can't be changed", "refused"))
        risk: Any = self.risk.value
        return Card(plan=Plan(title=f"{self.name} {self.target(args)}", risk=risk), digest=toy(ctx).state)

    async def perform(self, ctx: Context, args: Any, key: str | None, expect: str | None) -> Result:
        if expect != toy(ctx).state:
            return result("moved", "refused", reasons=[Reason(code="state_changed", message=S("moved"))])
        toy(ctx).do(f"{self.name} {self.target(args)}", key)
        if toy(ctx).away:
            toy(ctx).away -= 1
            return result("no answer", "failed", reasons=[Reason(code="unavailable", message=S("no answer"))])
        self.apply(ctx, args)
        return result(f"{self.name} {self.target(args)}: done")

    def apply(self, ctx: Context, args: Any) -> None:
        return None


class ToyCordon(Change):
    """Cordon a node."""

    name = "cordon_node"
    arguments = NodeArguments


class ToyDrain(Change):
    """Drain a node."""

    name = "drain_node"
    risk = Risk.D
    arguments = NodeArguments


class ToyCreate(Change):
    """Create a folder."""

    name = "create_folder"
    arguments = NewFolderArguments

    def apply(self, ctx: Context, args: Any) -> None:
        toy(ctx).folders_there.append(args.name)


class ToyDelete(Change):
    """Delete a folder."""

    name = "delete_folder"
    risk = Risk.D
    arguments = FolderArguments


def wish(tool: str, **arguments: Any) -> Wish:
    return Wish(tool=tool, arguments=arguments)


def calls(*wishes: Wish) -> Line:
    return Line(calls=list(wishes))


class Talk:
    """One conversation on the toy, and what its stream says."""

    def __init__(self, desk: Desk, session: Session, cluster: Toy) -> None:
        self.desk, self.session, self.toy = desk, session, cluster
        session._kit.patience = (0, 0)

    async def say(self, *texts: str) -> None:
        for text in texts:
            await self.session.send(text, "test")

    async def stream(self) -> list[Event]:
        return [event async for event in self.session.events(follow=False)]

    async def bodies(self, kind: str) -> list[Any]:
        return [event.body for event in await self.stream() if event.body.kind == kind]

    async def last(self, kind: str) -> Any:
        return (await self.bodies(kind))[-1]

    async def story(self) -> str:
        """The stream as a person would tell it."""
        return "\n".join(filter(None, (_told(event.body) for event in await self.stream())))

    async def decide(self, decision: Any, **more: Any) -> None:
        plan = await self.last("plan_shown")
        await self.session.decide(plan.question, plan.digest, decision, "test", **more)


def _told(body: Any) -> str | None:
    match body.kind:
        case "user_said":
            return f"> {body.text}"
        case "plan_shown":
            moved = " again" if body.moved else ""
            return f"plan{moved}: {', '.join(c.plan.title for c in body.calls)}?"
        case "decided":
            return f"{'rule: ' if body.automatic else ''}{body.decision}"
        case "call_ended":
            return f"{body.tool}: {body.status}"
        case "asked":
            return f"? {body.text} {body.choices}"
        case "answered":
            return f"< {body.text}"
        case "turn_ended":
            return f"({body.outcome})"
    return None


Opening = Callable[..., Awaitable[Talk]]


@pytest.fixture
def cluster(tmp_path: Path) -> Toy:
    return Toy(tmp_path / "done.jsonl")


@pytest.fixture
async def talk(tmp_path: Path, cluster: Toy) -> AsyncIterator[Opening]:
    """`await talk(line, line, …, thread=…)`: a conversation with a scripted model, each on a store opened anew."""
    async with AsyncExitStack() as stack:

        async def opened(*script: Line, thread: str | None = None, model: Any = None, **settings: Any) -> Talk:
            model = model or ScriptedModel(lines=list(script))
            desk = await open_desk(Settings(**settings), cluster, tmp_path, model)
            stack.push_async_callback(desk.close)
            desk.registry = Registry([ToyList(), ToyCordon(), ToyDrain(), ToyCreate(), ToyDelete()])
            return Talk(desk, await desk.open(thread), cluster)

        yield opened
