"""A conversation that was begun earlier: its last turns, and the question that still stands open."""

from cluster.sentence import S
from helmsman.conversation import Conversation
from helmsman.events import UserSaid
from helmsman.terminal.story import Story

TURNS = 3
"""How many of the last turns are told again."""


async def replay(conversation: Conversation, story: Story) -> str:
    """Text of the last turns; `story` has then taken every event that is stored."""
    turns: list[str] = [""]
    async for event in conversation.events(after=0, follow=False):
        text = story.take(event)
        if isinstance(event.body, UserSaid):
            turns.append("")
        turns[-1] += text
    story.label, story.live = None, ""
    before, last = len(turns) - 1 - TURNS, turns[-TURNS:]
    if not any(last):
        return ""
    note = S("Earlier in this conversation ({count} turns before this are left out):", count=max(before, 0))
    heading = note if before > 0 else S("Earlier in this conversation:")
    return "\n" + story.tell(heading, "muted") + "".join(last)
