"""The node's daemon: registers, beats, obeys, reports. It dials out; nothing connects to it.

One beat is under way at a time. When nothing is new it is a long poll that the server answers as soon as it has an
order; when something becomes new here meanwhile, the poll is given up and a beat with the news goes at once. An order
that was lost with the poll comes again, since the server gives it until it is reported.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import structlog

from cluster import errors
from cluster.agents.runner import Runner
from cluster.agents.samples import Sampler
from cluster.client import Client
from cluster.models import Beat, BeatReply, NodeInfo, Registered, Sample

log = structlog.get_logger("agent")

_LOOK = 0.2
_POLL = 10.0
_SAMPLE_EVERY = 5.0
_CLEAN_EVERY = 3600.0
_LOGS_PAUSE = 30.0
_BACKOFF = 0.2
_REFUSED = (errors.NotAuthenticated, errors.NotAllowed, errors.Conflict, errors.Invalid)
_LONGEST = {False: 5.0, True: 0.5}
"""Seconds between two tries to reach the server, by whether it is on this machine."""


class Agent:
    """Runs one node's work for the server that `connect` reaches. `connect` is called anew for each connection, since a
    restarted server may have moved."""

    def __init__(
        self,
        info: NodeInfo,
        runner: Runner,
        connect: Callable[[], Client],
        sampler: Sampler,
        joined: Callable[[str | None], None],
    ) -> None:
        """On the server's own machine (`info.same_host`) it looks for a server that is away more often. `joined` is
        called with the cluster's id at the first registration."""
        self._info = info
        self._runner = runner
        self._connect = connect
        self._sampler = sampler
        self._joined = joined
        self._registered = False
        self._interval = 5.0
        self._logs_from = 0.0
        self._sample_at = 0.0
        self._clean_at = 0.0

    async def run(self) -> None:
        """Until cancelled. A server that is away is waited for; the work goes on and is reported afterwards.

        Raises the `ClusterError` of a server that will not have this node, unless it has had it before.
        """
        self._runner.adopt()
        failures = 0
        while True:
            try:
                client = self._connect()
                try:
                    await self._register(client)
                    failures = 0
                    await self._beat_on(client)
                finally:
                    await client.close()
            except errors.ClusterError as e:
                if isinstance(e, _REFUSED) and not self._registered:
                    raise
                if failures & (failures - 1) == 0:
                    log.warning("server away", why=str(e), failures=failures)
            failures += 1
            await asyncio.sleep(_backoff(failures, _LONGEST[self._info.same_host]))

    async def _register(self, client: Client) -> None:
        reply = await client.send("POST", "/v1/agents/register", self._info)
        known = Registered.model_validate_json(reply.content or "{}")
        if not self._registered:
            self._registered = True
            self._joined(known.cluster)
        log.info("registered", node=self._info.name, running=len(self._runner.running()))

    async def _beat_on(self, client: Client) -> None:
        """Beat until the server does not answer, or does not know this node any more."""
        while True:
            beat = await self._compose()
            began = time.monotonic()
            reply = await self._send(client, beat)
            if reply is not None:
                self._runner.acknowledge(beat)
                self._obey(reply)
            self._clean()
            await asyncio.sleep(_pause(beat, reply, time.monotonic() - began))

    async def _compose(self) -> Beat:
        """What there is to say now."""
        runner = self._runner
        runner.refresh()
        telling = time.monotonic() >= self._logs_from
        reports = runner.reports(with_logs=telling)
        logs = runner.logs() if telling else []
        wait = 0 if reports or logs else min(_POLL, self._interval)
        return Beat(
            running=runner.running(),
            reports=reports,
            logs=logs,
            sample=await self._sample(),
            wait=wait,
            secret=self._info.secret,
        )

    async def _sample(self) -> Sample | None:
        if time.monotonic() < self._sample_at:
            return None
        self._sample_at = time.monotonic() + _SAMPLE_EVERY
        return await asyncio.to_thread(self._sampler.take, self._runner.holdings())

    async def _send(self, client: Client, beat: Beat) -> BeatReply | None:
        """The reply; None when something new came up while the server was silent, or it had no room for output."""
        try:
            if beat.wait == 0:
                return await self._post(client, beat)
            return await _unless(self._post(client, beat), self._news())
        except errors.StorageFull as e:
            log.warning("no room for output", why=str(e))
            self._logs_from = time.monotonic() + _LOGS_PAUSE
            return None

    async def _post(self, client: Client, beat: Beat) -> BeatReply:
        reply = await client.send("POST", f"/v1/agents/{self._info.name}/beat", beat)
        return BeatReply.model_validate_json(reply.content)

    async def _news(self) -> None:
        """Return when there is something to tell. Without work here there never is."""
        if not self._runner.busy():
            await asyncio.Event().wait()
        while not self._runner.news():  # noqa: ASYNC110 - supervisors speak by files, so as to outlive this process
            await asyncio.sleep(_LOOK)

    def _obey(self, reply: BeatReply) -> None:
        self._interval = reply.interval
        for order in reply.stop:
            log.info("stop", **order.id.model_dump(), grace=order.grace)
            self._runner.stop(order)
        for work in reply.start:
            log.info("start", **work.id.model_dump(), name=work.name)
            self._runner.accept(work)

    def _clean(self) -> None:
        if time.monotonic() >= self._clean_at:
            self._clean_at = time.monotonic() + _CLEAN_EVERY
            self._runner.clean()


def _pause(beat: Beat, reply: BeatReply | None, took: float) -> float:
    """Seconds to wait before the next beat: output, and orders that the server repeats until they are done, are not
    worth more than a few beats a second."""
    hurried = bool(beat.logs) or (reply is not None and bool(reply.start or reply.stop))
    return max(0.0, _LOOK - took) if hurried else 0.0


async def _unless(reply: Awaitable[BeatReply], news: Awaitable[None]) -> BeatReply | None:
    """The reply, or None if the news come first; the other one is cancelled."""
    tasks = [asyncio.ensure_future(reply), asyncio.ensure_future(news)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].result() if tasks[0].done() else None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _backoff(failures: int, longest: float) -> float:
    """Seconds until the next try: doubling, with a part by chance so that a thousand agents do not come at once."""
    return float(min(longest, _BACKOFF * 2 ** min(failures, 10)) * random.uniform(0.5, 1))
