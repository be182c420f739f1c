"""A running session's output, printed as it comes."""

import asyncio
import re
from collections.abc import Callable

from cluster.sentence import S, Sentence
from helmsman.render import clean
from helmsman.terminal.host import ClusterReads
from helmsman.terminal.story import Story

EVERY = 0.5
"""Seconds between two looks when nothing new came."""
FIRST_LINES = 20

_FOLLOW = re.compile(
    r"\b(follow|tail\s+-f|stream|watch|live|keep\s+(showing|printing|watching))\b|따라 ?가|계속|실시간|지켜",
    re.IGNORECASE,
)


def wants_to_follow(text: str) -> bool:
    """Whether a request for a log means to stay with it."""
    return bool(_FOLLOW.search(text))


class Follower:
    """Follows one session by byte offset. `cancel` ends it at once, also in the middle of a wait."""

    def __init__(self, cluster: ClusterReads, session: str, story: Story, show: Callable[[str], None]) -> None:
        self.cluster, self.session, self.story, self.show = cluster, session, story, show
        self._cancelled = asyncio.Event()

    def cancel(self) -> None:
        self._cancelled.set()

    async def run(self, from_now: bool = False) -> None:
        """Until the session has ended or `cancel`. With `from_now` what is there already isn't printed again."""
        page = await self.cluster.logs(self.session, tail=FIRST_LINES)
        self._tell(S("Following {session}; Ctrl+C stops following, not the session.", session=self.session))
        rest = "" if from_now else self._print(page.text)
        while not page.finished and not self._cancelled.is_set():
            offset = page.next_offset
            page = await self.cluster.logs(self.session, tail=None, offset=offset)
            rest = self._print(rest + page.text)
            if page.next_offset == offset:
                await self._pause()
        self._print(rest, last=True)
        over = S("{session} has ended.", session=self.session)
        self._tell(over if page.finished else S("No longer following {session}.", session=self.session))

    def _print(self, text: str, last: bool = False) -> str:
        """Print whole lines; the rest is what comes before a newline that isn't there yet."""
        whole, newline, rest = text.rpartition("\n")
        if last and rest:
            whole, newline, rest = text, "\n", ""
        if newline:
            self.show(clean(whole) + "\n")
        return rest

    def _tell(self, sentence: Sentence) -> None:
        self.show(self.story.tell(sentence, "muted"))

    async def _pause(self) -> None:
        try:
            await asyncio.wait_for(self._cancelled.wait(), EVERY)
        except TimeoutError:
            return
