"""What all conversations of one person share: the store, the agent, the model, the cluster. Faces open threads here."""

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING

from langchain_core.language_models.chat_models import BaseChatModel
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from cluster.client import Client
from cluster.errors import NotFound
from cluster.models import Names, S
from helmsman import approve
from helmsman.checkpoints import open_saver
from helmsman.conversation import ThreadInfo
from helmsman.errors import HelmsmanError
from helmsman.events import Happening
from helmsman.graph import Agent, build
from helmsman.kit import Kit, Opened
from helmsman.session import Session
from helmsman.settings import Settings
from helmsman.store import Store
from helmsman.turn import Language
from tools.registry import Registry, default_registry
from tools.words import language_of

if TYPE_CHECKING:
    from helmsman.terminal.host import Approval, ModelChoice


@dataclass(frozen=True)
class Who:
    """A user of one cluster."""

    user: str
    cluster: str


class Desk:
    """Implements `helmsman.terminal.host.Host` and `helmsman.web.conversations.Conversations`."""

    def __init__(self, settings: Settings, cluster: Client, store: Store, saver: AsyncSqliteSaver, who: Who) -> None:
        self.settings, self.cluster, self.store, self.saver = settings, cluster, store, saver
        self.registry: Registry = default_registry()
        self.agent: Agent = build(saver)
        self.settle: Callable[[], Awaitable[None]] | None = None
        self.timezone: tzinfo | None = None
        self.workdir: str | None = None
        self.user = who.user
        self.owner = f"{who.user}@{who.cluster}"
        """Whose threads and approvals these are: a user of one cluster."""
        self._model: BaseChatModel | None = None
        self._made: list[BaseChatModel] = []
        self._going_on: set[asyncio.Task[None]] = set()
        self._rules = [approve.parse_rule(text, self.registry) for text in settings.approvals]

    async def close(self) -> None:
        """Close the files, and the models made here; the cluster's client stays open."""
        from helmsman.models import close

        for task in self._going_on:
            task.cancel()
        await asyncio.gather(*self._going_on, return_exceptions=True)
        for model in self._made:
            await close(model)
        await self.saver.conn.close()
        await self.store.close()

    # ── threads ──────────────────────────────────────────────────────────────────────────────────

    async def open(self, thread: str | None = None) -> Session:
        """A past conversation or a new one; a turn whose process died goes on at once, in the background."""
        if thread is not None and not await self.store.owns(self.owner, thread):
            raise NotFound(S("There is no conversation {thread} of yours. /resume lists them.", thread=thread))
        session = Session(self, thread or f"t-{secrets.token_hex(4)}")
        if thread is not None:
            task = asyncio.create_task(_go_on(session))
            self._going_on.add(task)
            task.add_done_callback(self._going_on.discard)
        return session

    async def threads(self) -> list[ThreadInfo]:
        """Past conversations, newest first."""
        return await self.store.threads(self.owner)

    async def names(self) -> Names:
        """What exists in the cluster."""
        return await self.cluster.names()

    # ── models ───────────────────────────────────────────────────────────────────────────────────

    @property
    def model(self) -> BaseChatModel:
        """The model in use."""
        assert self._model is not None, "open_desk sets it"
        return self._model

    @model.setter
    def model(self, model: BaseChatModel) -> None:
        self._model = model

    def make_model(self, settings: Settings) -> BaseChatModel:
        """The model that `settings` name; it is closed with the desk. Raises `BadConfig` for an unusable one."""
        from helmsman.models import choose

        self._made.append(choose(settings, self.registry))
        return self._made[-1]

    async def models(self) -> "list[ModelChoice]":
        """What there is to choose from."""
        from helmsman.models import choices

        return choices(self.settings)

    async def use_model(self, name: str) -> None:
        """From the next turn on, in every conversation of this process. Raises `HelmsmanError` for an unusable one."""
        settings = self.settings.model_copy(update={"model": name})
        self.model = await asyncio.to_thread(self.make_model, settings)
        self.settings = settings

    # ── approvals in advance ─────────────────────────────────────────────────────────────────────

    async def approvals(self) -> "list[Approval]":
        """Those of the person, from the store; the configuration's own have no id to revoke."""
        from helmsman.terminal.host import Approval

        kept = await self.store.rules(self.owner)
        return [Approval(id=i, tool=rule.tool, pattern=rule.pattern) for i, rule in kept.items()]

    async def allow(self, tool: str, pattern: str | None) -> "Approval":
        """Add one; refused for tools that destroy."""
        from helmsman.terminal.host import Approval

        rule = approve.parse_rule(f"{tool} {pattern or ''}", self.registry)
        return Approval(id=await self.store.allow(self.owner, rule), tool=rule.tool, pattern=rule.pattern)

    async def revoke(self, approval: str) -> None:
        if not await self.store.revoke(self.owner, approval):
            raise HelmsmanError(S("There is no approval {id}; /approvals lists them.", id=approval))

    async def _all_rules(self) -> Sequence[approve.Rule]:
        return [*self._rules, *(await self.store.rules(self.owner)).values()]

    # ── for sessions ─────────────────────────────────────────────────────────────────────────────

    def language(self, text: str) -> Language:
        """The language to answer `text` in."""
        return language_of(text) if self.settings.language == "auto" else self.settings.language

    def kit(self, thread: str) -> Kit:
        """The means of one thread's graph."""

        async def emit(body: Happening, once: str | None) -> None:
            await self.store.append(thread, body, once)

        async def show(question: Opened, shown: Happening) -> None:
            await self.store.open_question(thread, question, shown)

        kit = Kit(
            model=lambda: self.model,
            registry=self.registry,
            client=self.cluster,
            user=self.user,
            emit=emit,
            open=show,
            rules=self._all_rules,
            workdir=self.workdir,
            timezone=self.timezone,
        )
        if self.settle:
            kit.settle = self.settle
        return kit


async def _go_on(session: Session) -> None:
    with suppress(HelmsmanError):
        await session.recover()


async def open_desk(
    settings: Settings, cluster: Client, folder: Path | None = None, model: BaseChatModel | None = None
) -> Desk:
    """`folder` holds the conversations (the person's data directory when left out); `model` in place of the settings'.

    Raises `HelmsmanError` or `ClusterError` with a sentence when something is not there.
    """
    quiet(settings)
    user, status = await asyncio.gather(cluster.whoami(), cluster.status())
    path = (folder or settings.data_dir) / "conversations.db"
    async with AsyncExitStack() as undo:
        store = await Store.open(path)
        undo.push_async_callback(store.close)
        saver = await open_saver(path)
        undo.push_async_callback(saver.conn.close)
        desk = Desk(settings, cluster, store, saver, Who(user.name, status.name))
        desk.model = model if model is not None else await asyncio.to_thread(desk.make_model, settings)
        undo.pop_all()
    return desk


async def open_session(settings: Settings, *, cluster: Client, thread: str | None = None) -> Session:
    """One conversation on a desk of its own: the short way in for a program that needs no more."""
    return await (await open_desk(settings, cluster)).open(thread)


def quiet(settings: Settings) -> None:
    """Nothing leaves this machine unless it is asked for: LangSmith's tracing is off."""
    if not settings.langsmith:
        for name in ("LANGSMITH_TRACING", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING", "LANGCHAIN_TRACING_V2"):
            os.environ[name] = "false"
