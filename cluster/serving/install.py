"""Models on their way in, from the hub.

```
row `installing` ─ commit ─► process `cluster.serving.fetch` into models/.incoming/<name>
     says its size ─► is there room? ─► go ─► on the disk, checked ─► ONE rename to models/<name> ─► row `ready`
                                  │ not found, not allowed, no room, no progress …
                                  └► row `failed` with its reason; what was fetched stays for the next try
```

Everything follows from what is written: a row in `installing` without a process gets one, which goes on with what the
last one left; a directory that has its name already only lacks the commit. In a simulated cluster a model arrives at
`SPEED`, in virtual time.
"""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import select

from cluster.db.tables import ModelRow
from cluster.errors import ClusterError
from cluster.models import Card, Reason, Recipe
from cluster.sentence import S, Sentence
from cluster.serving import cards
from cluster.serving.recipes import LaunchSpec
from cluster.serving.store import FAILED, INSTALLING, READY, Places
from cluster.storage.volumes import sync
from cluster.transaction import Transaction
from cluster.units import human_size

if TYPE_CHECKING:
    from cluster.core import Core

log = structlog.get_logger(__name__)

AT_ONCE = 2
"""Models that are fetched at the same time; others wait their turn."""
STALLED = timedelta(minutes=10)
"""One that has not moved for so long has failed."""
LOOK = timedelta(seconds=3)
"""So often it is looked how much is there."""
AGAIN = timedelta(seconds=5)
"""After a broken connection it is tried again so soon."""
SPARE = 2**30
"""Bytes of the disk that are left to others."""
SPEED = 200e6
"""Bytes a second in a simulated cluster; of a model whose size is not known it is as much as of `UNKNOWN`."""
UNKNOWN = 12 * 10**9


@dataclass(eq=False)
class Fetch:
    """One that is under way, or over and not yet written down."""

    name: str
    ident: str
    directory: Path
    moved: datetime
    """When it was last seen to have moved."""
    told: dict[str, Any] = field(default_factory=dict)
    """What the process has said of the size."""
    end: dict[str, Any] = field(default_factory=dict)
    """Its last word."""
    going: bool = False
    there: int = 0
    looked: datetime | None = None
    process: asyncio.subprocess.Process | None = None
    task: asyncio.Task[None] | None = None

    async def run(self, wake: Callable[[], None]) -> None:
        """Follow the process to its end."""
        self.directory.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "cluster.serving.fetch", self.ident, str(self.directory)]
        pipe, none = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        self.process = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=none, start_new_session=True
        )
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            with suppress(ValueError):
                said = json.loads(line)
                self.told, self.end = (said, self.end) if "size" in said else (self.told, said)
            wake()
        await self.process.wait()
        wake()

    def go(self) -> None:
        self.going = True
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.write(b"go\n")

    @property
    def over(self) -> bool:
        return self.task is not None and self.task.done()

    def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.kill()


class Installs:
    """The keeper of all models that are being installed (`core.installs`)."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self.places = Places(core.data_dir)
        self._fetches: dict[str, Fetch] = {}
        self._rows: dict[str, ModelRow] = {}
        """Those in `installing`, as last read."""
        self._look = True
        self._pauses: dict[str, datetime] = {}

    def look_again(self) -> None:
        """A model was asked for, or given up, and that is about to be committed."""
        self._look = True

    def progress(self, row: ModelRow) -> float | None:
        """The share of it that is there; None when that can't be said."""
        if row.state != INSTALLING:
            return None
        if self._core.simulated:
            gone = (self._core.clock.now() - row.state_since).total_seconds()
            return min(1.0, gone * SPEED / (row.size or UNKNOWN))
        fetch = self._fetches.get(row.name)
        return min(1.0, fetch.there / row.size) if fetch is not None and row.size else None

    async def load(self) -> None:
        """What is nobody's any more is removed."""
        await self._read()
        async with self._core.db.read() as db:
            kept = set(await db.scalars(select(ModelRow.name).where(ModelRow.state != READY)))
        if not self._core.simulated:
            await asyncio.to_thread(_sweep, self.places, kept)

    async def step(self) -> bool:
        if not self._look and not self._rows and not self._fetches:
            return False
        await self._read()
        if self._core.simulated:
            return any([await self._simulated(row) for row in [*self._rows.values()]])
        for name in [name for name in self._fetches if name not in self._rows]:
            await self._abandon(name)
        return any([await self._looked_after(row) for row in [*self._rows.values()]])

    def due(self) -> datetime | None:
        if not self._core.simulated or not self._rows:
            return None
        return min(_arrives(row) for row in self._rows.values())

    async def close(self) -> None:
        for name in [*self._fetches]:
            await self._abandon(name)

    async def _read(self) -> None:
        self._look = False
        async with self._core.db.read() as db:
            rows = await db.scalars(select(ModelRow).where(ModelRow.state == INSTALLING).order_by(ModelRow.created))
            self._rows = {row.name: row for row in rows}

    async def _abandon(self, name: str) -> None:
        fetch = self._fetches.pop(name)
        fetch.stop()
        if fetch.task is not None:
            await asyncio.gather(fetch.task, return_exceptions=True)

    async def _simulated(self, row: ModelRow) -> bool:
        return self._core.clock.now() >= _arrives(row) and await self._written(row, _simulated_ready)

    # ── real ones ────────────────────────────────────────────────────────────────────────────────

    async def _looked_after(self, row: ModelRow) -> bool:
        """Begin it, let it go on, watch it, or write down how it ended. True when a state changed."""
        fetch = self._fetches.get(row.name)
        if fetch is None:
            return await self._begin(row)
        if fetch.over:
            return await self._ended(row, fetch)
        if fetch.told and not fetch.going:
            return await self._with_size(row, fetch)
        return await self._watched(row, fetch)

    async def _begin(self, row: ModelRow) -> bool:
        """Have it fetched, in its turn. True when it is there already."""
        if self.places.model(row.name).is_dir():
            return await self._arrived(row)  # it was renamed, and the commit did not come to pass
        now = self._core.clock.now()
        if len(self._fetches) >= AT_ONCE or now < self._pauses.get(row.name, now):
            return False
        fetch = Fetch(row.name, row.source, self.places.incoming(row.name), now)
        fetch.task = asyncio.create_task(fetch.run(self._core.wake.set))
        self._fetches[row.name] = fetch
        return False

    async def _with_size(self, row: ModelRow, fetch: Fetch) -> bool:
        """It is known how large it is: is there room?"""
        size = int(fetch.told["size"])
        others = sum(self._left(other) for other in self._fetches.values() if other is not fetch and other.going)
        fetch.there = await asyncio.to_thread(_bytes_in, fetch.directory)
        free = await asyncio.to_thread(lambda: shutil.disk_usage(self.places.top).free)
        needed = size - fetch.there + others + SPARE
        if needed > free:
            await self._abandon(row.name)
            words = {"size": human_size(size), "free": human_size(max(0, free - others - SPARE))}
            return await self._failed(
                row, S("It has {size}, and the disk has room for {free}.", **words), "storage_full"
            )

        def note(tx: Transaction, now: ModelRow) -> None:
            now.size = size

        await self._written(row, note)
        fetch.go()
        return True

    def _left(self, fetch: Fetch) -> int:
        """Bytes that are still to come."""
        return max(0, int(fetch.told.get("size", 0)) - fetch.there)

    async def _watched(self, row: ModelRow, fetch: Fetch) -> bool:
        """Has it moved lately?"""
        now = self._core.clock.now()
        if fetch.looked is not None and timedelta(0) <= now - fetch.looked < LOOK:
            return False
        there = await asyncio.to_thread(_bytes_in, fetch.directory)
        if there != fetch.there or not timedelta(0) <= now - fetch.moved:
            fetch.moved = now
        fetch.there, fetch.looked = there, now
        if now - fetch.moved <= STALLED:
            return False
        await self._abandon(row.name)
        return await self._failed(row, S("Nothing came for {minutes} minutes.", minutes=STALLED.seconds // 60))

    async def _ended(self, row: ModelRow, fetch: Fetch) -> bool:
        """The process is over."""
        await self._abandon(row.name)
        if fetch.end.get("done"):
            place = self.places.model(row.name)
            await asyncio.to_thread(_put, fetch.directory, place)
            return await self._arrived(row)
        now = self._core.clock.now()
        if fetch.going and fetch.end.get("failed", "offline") == "offline" and now - fetch.moved <= STALLED:
            self._pauses[row.name] = now + AGAIN  # the connection broke; it goes on where it was
            return False
        code, detail = str(fetch.end.get("failed", "failed")), str(fetch.end.get("detail", ""))
        return await self._failed(
            row, _why(code, detail, row.source), "storage_full" if code == "full" else "unavailable"
        )

    async def _arrived(self, row: ModelRow) -> bool:
        """Its files are in their place: read what they are, and write it down."""
        place = self.places.model(row.name)
        try:
            found = await asyncio.to_thread(cards.look, place)
            recipe = self._recipe(Recipe.model_validate(row.recipe), found, place)
        except (OSError, ClusterError) as e:
            await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
            return await self._failed(row, S("Its files can't be used: {why}.", why=str(e)))
        card = cards.merged(Card.model_validate(row.card), found.card)

        def ready(tx: Transaction, now: ModelRow) -> None:
            now.state, now.state_since, now.reasons = READY, tx.now, []
            now.recipe, now.card, now.size = recipe.model_dump(mode="json"), card.model_dump(mode="json"), found.size
            _ready(tx, now)

        return await self._written(row, ready)

    def _recipe(self, asked: Recipe, found: cards.Found, place: Path) -> Recipe:
        return recipe_for(self._core, self.places, asked, found, place)

    async def _failed(self, row: ModelRow, why: Sentence, code: str = "unavailable") -> bool:
        def failed(tx: Transaction, now: ModelRow) -> None:
            now.state, now.state_since = FAILED, tx.now
            now.reasons = [Reason.model_validate({"code": code, "message": why}).model_dump(mode="json")]
            said = S("Model {name} could not be installed: {why}", name=now.name, why=str(why))
            tx.event("model_failed", now.name, said, "error", owner=now.owner, project=now.project)

        return await self._written(row, failed)

    async def _written(self, row: ModelRow, change: Callable[[Transaction, ModelRow], None]) -> bool:
        """Change the row, if it is still the one that is being installed."""

        async def work(tx: Transaction) -> Callable[[], bool]:
            now = await tx.db.get(ModelRow, row.name)
            same = now is not None and now.state == INSTALLING and now.created == row.created
            if now is not None and same:
                change(tx, now)
            return lambda: same

        self._look = True
        return await self._core.writer.alone(self._core.system, work)


def recipe_for(core: "Core", places: Places, asked: Recipe, found: cards.Found, place: Path) -> Recipe:
    """How what was found in `place` is served: as the recipe asks that has a name of its own, else by what it is.

    Raises `Invalid` for a broken recipe of an admin's, `ClusterError` when nothing is known that serves it.
    """
    book = places.book()
    env = {"MODEL_PATH": str(place)} | ({"MODEL_FILE": str(place / found.file)} if found.file else {})
    named = book.models.get(asked.name)
    if named is not None and named.source == asked.source:
        launch = asked.launch.model_copy(update={"env": env | asked.launch.env})
        return asked.model_copy(update={"launch": launch, "source": str(place)})
    runtime = found.runtime
    if not runtime:
        raise ClusterError(S("there is no config.json, GGUF file or other sign of what can serve it"))
    own = LaunchSpec(env=env)
    if runtime == "vllm" and not any(node.gpu_model for node in core.ledger.nodes.values()):
        runtime, own = "transformers", LaunchSpec(env=env, gpu=0)
    return Recipe.model_validate(
        {"name": asked.name, "runtime": runtime, "source": str(place), "launch": book.launch(runtime, own)}
    )


def _why(code: str, detail: str, source: str) -> Sentence:
    """What became of it, and what to do."""
    hub = os.environ.get("HF_ENDPOINT", "huggingface.co")
    match code:
        case "offline":
            return S(
                "The hub ({hub}) can't be reached from the cluster's server. Put the model into a folder and install "
                "that, or set HF_ENDPOINT to a mirror, and try again.",
                hub=hub,
            )
        case "not_found":
            return S("The hub has no model {source}, or it is not for everybody.", source=source)
        case "not_allowed":
            return S(
                "{source} is given only to those who have agreed to its licence: do so at the hub, and set HF_TOKEN "
                "for the cluster's server.",
                source=source,
            )
        case "pickle":
            return S("{source} has its weights as pickles only, which can run code when they are read.", source=source)
        case "no_weights":
            return S("{source} has no weights in a format that is known (safetensors, GGUF, ONNX).", source=source)
        case "strange":
            return S("{source} has a file whose name leads elsewhere: {file}.", source=source, file=detail)
        case "checksum":
            return S("{file} is not what the hub says it is; it was removed. Try again.", file=detail)
        case "full":
            return S("The disk is full.")
        case _:
            return S("It could not be fetched: {why}.", why=detail or code)


def _arrives(row: ModelRow) -> datetime:
    return row.state_since + timedelta(seconds=(row.size or UNKNOWN) / SPEED)


def _simulated_ready(tx: Transaction, row: ModelRow) -> None:
    row.state, row.state_since, row.size = READY, tx.now, row.size or UNKNOWN
    _ready(tx, row)


def _ready(tx: Transaction, row: ModelRow) -> None:
    said = S("Model {name} is installed.", name=row.name)
    tx.event("model_ready", row.name, said, owner=row.owner, project=row.project)


# ── the disk; in threads ─────────────────────────────────────────────────────────────────────────


def _put(incoming: Path, place: Path) -> None:
    """On the disk, then one rename."""
    os.sync()
    incoming.rename(place)
    sync(place.parent)


def _bytes_in(directory: Path) -> int:
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def _sweep(places: Places, kept: set[str]) -> None:
    """What was removed, and what came in for nobody."""
    shutil.rmtree(places.top / ".removed", ignore_errors=True)
    incoming = places.top / ".incoming"
    for directory in incoming.iterdir() if incoming.is_dir() else ():
        if directory.name not in kept:
            shutil.rmtree(directory, ignore_errors=True)
