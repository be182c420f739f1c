"""The README's transcript: real lines, the real G, the demonstration's fleet with its clock standing still.

python -m evals.transcript            print it
python -m evals.transcript --write    put it into README.md, between its two marks
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

from helmsman.desk import open_desk
from helmsman.place import simulate
from helmsman.render import Look
from helmsman.session import Session
from helmsman.settings import Settings
from helmsman.terminal.story import Story

README = Path(__file__).parents[1] / "README.md"
BEGIN = "<!-- transcript:"
END = "<!-- end of transcript -->"
LINES = (
    "why is dpo-ko still waiting?",
    "cordon a100-03, bad fan",
    "yes",
    "undo that",
    "yes",
    "민호가 돌리는 세션 보여줘",
)


async def tell(lines: tuple[str, ...] = LINES) -> str:
    """What the terminal shows for `lines`, 96 columns wide, without colours."""
    story = Story(Look(width=96, color=False, language="en"))
    async with simulate(None) as (client, world):
        with tempfile.TemporaryDirectory(prefix="helmsman-transcript-") as folder:
            desk = await open_desk(Settings(), client, Path(folder))
            desk.settle, desk.timezone = world.settle, world.timezone
            try:
                session = await desk.open()
                told = [await _turn(session, line, story) for line in lines]
            finally:
                await desk.close()
    return "".join(told).strip("\n")


async def _turn(session: Session, line: str, story: Story) -> str:
    await session.send(line, story.face)
    return "".join([story.take(e) async for e in session.events(after=story.seq, follow=False)])


def block(readme: str) -> str:
    """The transcript that stands in the README's text."""
    return readme.split("```text\n", 1)[1].split("\n```", 1)[0]


def put(readme: str, told: str) -> str:
    """The README's text with `told` between the marks."""
    before, rest = readme.split(BEGIN, 1)
    mark, rest = rest.split("\n", 1)
    return f"{before}{BEGIN}{mark}\n```text\n{told}\n```\n{END}{rest.split(END, 1)[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    told = asyncio.run(tell())
    if parser.parse_args().write:
        README.write_text(put(README.read_text(), told))
    print(told)


if __name__ == "__main__":
    main()
