"""Moving a cluster from a file to PostgreSQL: everything arrives as it was, or nothing does."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from cluster.core import Core
from cluster.db import copy as module
from cluster.db.copy import copy
from cluster.db.tables import Base, FolderRow
from cluster.db.temporary import outside
from cluster.errors import Conflict
from cluster.models import CordonNode, CreateFolder, DeleteFolder, OperationRequest, StartSession, User
from cluster.reads import SessionQuery
from cluster.server import locked
from cluster.simulator.lab import Lab

BOSS = User(name="boss", role="admin", projects=["red"])


@pytest.fixture
async def target(postgres: Any) -> AsyncIterator[URL]:
    url = await postgres.fresh()
    yield url
    await postgres.drop(url)


@pytest.fixture
async def busy(lab: Lab) -> Lab:
    """One of everything that the core makes by itself."""
    node = await lab.node("n1", gpus=2)
    await lab.ann.execute(StartSession(command="x 한국어", name="runs", gpu=0.5, env={"A": "1"}), key="k")
    await node.obey()
    await lab.ann.execute(StartSession(command="x", name="ended"))
    await node.exit((await node.obey()).start[0].id, 0)
    for name in ("cats", "dogs"):
        await lab.ann.execute(CreateFolder(name=name))
    await lab.ann.execute(DeleteFolder(folder="cats"))
    await lab.boss.execute(CordonNode(node="n1", reason="fan"))
    return lab


async def test_a_cluster_goes_on_on_postgresql_as_it_was(busy: Lab, target: URL, tmp_path: Path) -> None:
    sessions = (await busy.boss.sessions()).items
    journal = (await busy.boss.audit()).items
    await busy.core.save()
    before = await rows(tmp_path / "cluster.db")
    counts = await copy(tmp_path / "cluster.db", target)
    assert counts == {name: len(found) for name, found in before.items()}
    core = await Core.open(target, clock=busy.clock, data_dir=tmp_path, name="lab", alone=True)
    try:
        assert (await core.reads.sessions(BOSS, SessionQuery())).items == sessions
        again = await core.execute(
            User(name="ann", projects=["red"]),
            OperationRequest(operation=StartSession(command="x 한국어", name="runs", gpu=0.5, env={"A": "1"}), key="k"),
        )
        assert again.session is not None
        assert again.session.id == sessions[0].id
        made = await core.execute(BOSS, OperationRequest(operation=CreateFolder(name="birds", project="red")))
        assert made.audit_id == f"a-{len(journal) + 1:04d}"
        async with core.db.read() as db:
            assert (await db.get_one(FolderRow, 3)).name == "birds"
    finally:
        await core.close()


async def rows(where: Path) -> dict[str, list[Any]]:
    return {name: await outside(where, f'SELECT * FROM "{name}"') for name in Base.metadata.tables}


async def test_a_database_with_a_cluster_in_it_is_left_alone(busy: Lab, target: URL, tmp_path: Path) -> None:
    await copy(tmp_path / "cluster.db", target)
    with pytest.raises(Conflict, match="already"):
        await copy(tmp_path / "cluster.db", target)


async def test_a_copy_that_fails_leaves_nothing(
    busy: Lab, target: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module._bites

    def loses_one(old: Any, table: Any) -> Any:
        for found in real(old, table):
            yield found[1:] if table.name == "sessions" else found

    monkeypatch.setattr(module, "_bites", loses_one)
    with pytest.raises(Exception):  # noqa: B017, PT011 - a count, or a row that refers to the one that is missing
        await copy(tmp_path / "cluster.db", target)
    assert await outside(target, "SELECT count(*) FROM users") == [(0,)]


Capture = pytest.CaptureFixture[str]
URL_TEXT = "postgresql://ann:hunter2@127.0.0.1:1/helm"


def said(capsys: Capture, *words: str) -> str:
    """The one sentence with which it ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["copy", *words])
        assert module.main() == 1
    done = capsys.readouterr()
    assert (done.out, done.err.count("\n")) == ("", 1), done.err
    assert "hunter2" not in done.err
    return done.err


def test_what_is_wrong_is_one_sentence(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "cluster.db").write_text("not a database, but long enough to look like a file of one" * 50)
    file = str(tmp_path / "cluster.db")
    assert "There is no file" in said(capsys, str(tmp_path / "none.db"), URL_TEXT)
    assert "can't be read as a database" in said(capsys, file, URL_TEXT)
    assert "postgresql://USER@HOST" in said(capsys, file, "hunter2")


def test_a_server_that_runs_on_the_file_is_not_copied_from(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "cluster.db").touch()
    with locked(tmp_path):
        assert "Another server runs on" in said(capsys, str(tmp_path / "cluster.db"), URL_TEXT)
