"""The schema is the same on both database programs: by migrations as by the models, and from every release's data."""

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import URL, Connection, create_engine, select, text
from sqlalchemy.ext.asyncio import create_async_engine

from cluster.clock import WallClock
from cluster.core import Core
from cluster.db.engine import Database, Where
from cluster.db.schema import migrate
from cluster.db.tables import Base, EventRow, GroupRow, NodeRow
from cluster.db.temporary import outside
from cluster.errors import Unavailable
from cluster.journal.reads import EventQuery
from cluster.models import User


def drift(connection: Connection) -> list[object]:
    """What a migration would have to change."""
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, Base.metadata))


async def on(where: Where, work: object) -> object:
    """What `work` finds on a plain connection, not ours."""
    if isinstance(where, Path):
        engine = create_engine(f"sqlite:///{where}")
        with engine.begin() as connection:
            found = work(connection)
        engine.dispose()
        return found
    remote = create_async_engine(where.set(drivername="postgresql+asyncpg"))
    async with remote.begin() as connection:
        found = await connection.run_sync(work)
    await remote.dispose()
    return found


@pytest.fixture
async def empty(where: Where) -> Where:
    """As `where`, without any schema."""
    if isinstance(where, URL):
        await outside(where, "DROP SCHEMA public CASCADE")
        await outside(where, "CREATE SCHEMA public")
    return where


async def test_the_migrations_make_what_the_models_say(empty: Where) -> None:
    await (await Database.open(empty)).close()
    assert await on(empty, drift) == []


async def test_what_the_first_release_kept_is_brought_up_to_date(empty: Where, tmp_path: Path) -> None:
    await on(empty, lambda connection: migrate(connection, "0001"))
    await on(empty, first_release)
    core = await Core.open(empty, clock=WallClock(), data_dir=tmp_path, name="old")
    session = core.ledger.sessions["s-1"]
    assert (session.requeue, session.preemptible, session.ranks[0].devices) == (False, False, {0: 0.5})
    assert session.submitted.isoformat() == "2026-03-01T09:00:00+00:00"
    await core.close()
    assert await on(empty, drift) == []


def first_release(connection: Connection) -> None:
    """A session that runs on a node."""
    for sql in (
        "INSERT INTO resource_groups VALUES ('default', 'fifo', 'concentrated', false, false)",
        "INSERT INTO nodes (name, resource_group, status, cpu, memory, devices, isolation, same_host, sample) "
        "VALUES ('n1', 'default', 'alive', 8, 1000, '[]', 'process', false, '{}')",
        'INSERT INTO sessions (id, name, "user", project, type, state, state_since, cpu, memory, gpu, node_count, '
        "resource_group, priority, mounts, env, depends_on, submitted, attempt, grace, reasons) VALUES ('s-1', "
        "'job', 'ann', 'red', 'batch', 'running', '2026-03-01 09:00:00.000000', 2, 100, 0, 1, 'default', 10, '[]', "
        "'{}', '[]', '2026-03-01 09:00:00.000000', 1, 10, '[]')",
        "INSERT INTO allocations VALUES ('s-1', 0, 'n1', 2, 100, '{\"0\"\\: 0.5}', 'running', NULL)",
    ):
        connection.execute(text(sql))


async def test_old_events_of_sessions_get_the_project_in_which_alone_their_name_was(
    empty: Where, tmp_path: Path
) -> None:
    await on(empty, lambda connection: migrate(connection, "0002"))
    await on(empty, second_release)
    core = await Core.open(empty, clock=WallClock(), data_dir=tmp_path, name="old")
    async with core.db.read() as db:
        found = {seq: (owner, project) for seq, owner, project in await db.execute(
            select(EventRow.seq, EventRow.owner, EventRow.project))}  # fmt: skip
    ann = User(name="ann", projects=["red"])
    seen = [event.seq for event in (await core.journal.events(ann, EventQuery())).items]
    await core.close()
    assert found == {1: (None, "red"), 2: (None, None), 3: (None, None), 4: (None, None), 5: (None, "red")}
    assert seen == [1, 4, 5], "neither those of a name in two projects, nor of one that nobody knows"


def second_release(connection: Connection) -> None:
    """Sessions of one name in one project, and in two; events of them, of a node, and of what is not known any more."""
    for ident, name, project in (("s-1", "job", "red"), ("s-2", "job", "red"), ("s-3", "both", "red"),
                                 ("s-4", "both", "blue"), ("s-5", "n1", "blue")):  # fmt: skip
        connection.execute(
            text(
                'INSERT INTO sessions (id, name, "user", project, type, state, state_since, cpu, memory, gpu, '
                "node_count, resource_group, priority, mounts, env, depends_on, submitted, ended, attempt, grace, "
                "reasons) VALUES (:id, :name, 'ann', :project, 'batch', 'terminated', '2026-03-01 09:00:00.000000', 2, "
                "100, 0, 1, 'default', 10, '[]', '{}', '[]', '2026-03-01 09:00:00.000000', "
                "'2026-03-01 10:00:00.000000', 1, 10, '[]')"
            ),
            {"id": ident, "name": name, "project": project},
        )
    for seq, (kind, target) in enumerate([("session_running", "job"), ("session_running", "both"),
                                          ("session_error", "gone"), ("node_lost", "n1"),
                                          ("session_error", "job")], 1):  # fmt: skip
        connection.execute(
            text(
                "INSERT INTO events (seq, at, kind, severity, target, message) VALUES "
                "(:seq, '2026-03-01 09:00:00.000000', :kind, 'info', :target, :message)"
            ),
            {"seq": seq, "kind": kind, "target": target, "message": '{"text": "x", "params": {}}'},
        )


async def test_a_database_of_a_newer_program_is_one_sentence(where: Where) -> None:
    await (await Database.open(where)).close()
    await outside(where, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Unavailable, match="newer"):
        await Database.open(where)


async def test_a_first_start_that_fails_half_way_leaves_nothing_behind(
    empty: Where, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alembic.operations import Operations

    real, made = Operations.create_table, []

    def dies(self: Operations, name: str, *args: object, **more: object) -> object:
        made.append(name)
        if len(made) == 5:
            raise KeyboardInterrupt
        return real(self, name, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Operations, "create_table", dies)
        with pytest.raises(KeyboardInterrupt):
            await Database.open(empty)
    database = await Database.open(empty)
    async with database.read() as db:
        assert (await db.execute(text("SELECT count(*) FROM sessions"))).scalar() == 0
    await database.close()


async def test_amounts_of_more_than_four_billion_fit_everywhere(where: Where) -> None:
    database = await Database.open(where)
    async with database.write() as db:
        db.add(GroupRow(name="default"))
        await db.flush()
        db.add(NodeRow(name="n1", resource_group="default", cpu=1, memory=2**62, devices=[]))
    async with database.read() as db:
        assert (await db.get_one(NodeRow, "n1")).memory == 2**62
    await database.close()


async def test_names_sort_by_code_point_whatever_language_the_server_speaks(where: Where) -> None:
    names = ["B", "a", "Ä", "n-10", "n-2", "가", "_"]
    database = await Database.open(where)
    async with database.write() as db:
        db.add_all([GroupRow(name=name) for name in names])
    async with database.read() as db:
        found = (await db.scalars(text("SELECT name FROM resource_groups ORDER BY name"))).all()
    await database.close()
    assert found == sorted(names)
