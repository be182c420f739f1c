"""The README says what is true: its transcript is what the program shows, its commands and files exist."""

import re
from pathlib import Path

import pytest

from evals.transcript import block, tell

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.slow
async def test_the_transcript_is_what_the_program_shows() -> None:
    assert block(README) == await tell()


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README + (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE))
    assert named
    assert named <= targets


def test_every_file_that_is_named_exists() -> None:
    named = re.findall(r"\]\(([\w./-]+)\)|`([\w/]+\.(?:md|py|toml))`", README)
    paths = {a or b for a, b in named} - {"config.toml", "test_story.py"}
    assert [p for p in paths if not (ROOT / p).exists() and not (ROOT / "tests" / p).exists()] == []
