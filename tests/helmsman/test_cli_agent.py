"""`helmsman up --listen`, `agent-token`, `agent`: how other machines come in."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.errors import Conflict, Unavailable
from helmsman import cli, embedded
from helmsman.embedded import ensure_running, join_command, stop


@pytest.fixture
async def data(tmp_path: Path) -> AsyncIterator[Path]:
    yield tmp_path / "data"
    await stop(tmp_path / "data", tmp_path / "state")


def test_without_a_cluster_there_is_no_token_to_print(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("DATA", "STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.setattr(sys, "argv", ["helmsman", "agent-token"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 5
    assert "helmsman up" in capsys.readouterr().err


@pytest.mark.slow
async def test_a_cluster_for_this_machine_only_says_how_to_open_it(data: Path, tmp_path: Path) -> None:
    await ensure_running(data, tmp_path / "state")
    with pytest.raises(Conflict, match=r"`helmsman up --listen 0\.0\.0\.0:8400`"):
        await join_command(data)
    with pytest.raises(Conflict, match="stop it first with `helmsman down`"):
        await ensure_running(data, tmp_path / "state", listen="0.0.0.0:0")


@pytest.mark.slow
async def test_an_open_cluster_prints_the_command_for_other_machines_and_stays_open(data: Path, tmp_path: Path) -> None:
    await ensure_running(data, tmp_path / "state", listen="0.0.0.0:0")
    words = (await join_command(data)).split()
    assert words[:3] == ["helmsman", "agent", "--join"]
    assert words[3].startswith("http://")
    assert words[4:] == ["--token", (data / "cluster" / "agent.token").read_text().strip()]
    await ensure_running(data, tmp_path / "state", listen="0.0.0.0:0")
    await stop(data, tmp_path / "state")
    await ensure_running(data, tmp_path / "state")
    assert await join_command(data)


@pytest.mark.slow
async def test_a_place_to_listen_that_is_none_is_said(data: Path, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="everywhere is not ADDRESS:PORT"):
        await ensure_running(data, tmp_path / "state", listen="everywhere")


def test_the_agents_words_are_those_that_were_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(embedded.os, "execv", lambda program, words: called.append(words))
    monkeypatch.setattr(sys, "argv", ["helmsman", "agent", "--data", str(tmp_path), "--rack", "r1"])
    with pytest.raises(SystemExit):
        cli.main()
    assert called == [[sys.executable, "-m", "cluster.agents", "--data", str(tmp_path), "--rack", "r1"]]
