"""Stories of endpoints: deployed, scaled, moved to another model, deleted, and what happens to their replicas."""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

import httpx
import pytest
from sqlalchemy import select

from cluster.api.app import create_app
from cluster.client import Client
from cluster.core import Core
from cluster.db.engine import Where
from cluster.db.tables import ModelRow, ReplicaRow
from cluster.errors import NotFound
from cluster.live import LiveSession
from cluster.models import (
    DeleteEndpoint,
    DeployModel,
    DrainNode,
    Endpoint,
    EndpointHealth,
    EndpointState,
    Launch,
    Outcome,
    Recipe,
    ReplicaPhase,
    ScaleEndpoint,
    StartSession,
    TerminateSessions,
    UncordonNode,
    Undo,
)
from cluster.serving import rollout
from cluster.serving.health import Key, Target, Verdict
from cluster.simulator.lab import Lab

Phase = ReplicaPhase


class HandHealth:
    """Replicas are healthy as soon as they run, unless their id is among the `sick` or their name among the `slow`."""

    def __init__(self) -> None:
        self.sick: set[str] = set()
        self.slow: set[str] = set()
        self.targets: list[Target] = []

    def of(self, session: LiveSession, now: datetime) -> Verdict:
        since = session.started or now
        if session.id in self.sick:
            return Verdict(since, Phase.UNHEALTHY)
        return Verdict(since, Phase.STARTING if session.name in self.slow else Phase.HEALTHY)

    def watch(self, targets: Mapping[Key, Target]) -> None:
        self.targets = [*targets.values()]

    def due(self, session: LiveSession, now: datetime) -> datetime | None:
        return None

    async def close(self) -> None: ...


class Play:
    """A lab with models in its store and nodes that obey."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.health = HandHealth()
        lab.core.serving.health = self.health

    async def model(
        self,
        name: str,
        project: str | None = None,
        state: str = "ready",
        runtime: Literal["vllm", "command"] = "command",
        source: str | None = None,
        **launch: Any,
    ) -> None:
        recipe = Recipe(name=name, runtime=runtime, source=source, launch=Launch(command="serve", **launch))
        async with self.lab.core.db.write() as db:
            db.add(
                ModelRow(
                    name=name,
                    owner="boss",
                    project=project,
                    source=name,
                    recipe=recipe.model_dump(mode="json"),
                    card={},
                    state=state,
                    state_since=self.lab.clock.now(),
                    reasons=[],
                    created=self.lab.clock.now(),
                )
            )

    async def settle(self) -> None:
        """Passes and obedient agents, until nothing changes."""
        for _ in range(50):
            changed = False
            for agent in self.lab.agents:
                reply = await agent.obey()
                changed = changed or bool(reply.start or reply.stop)
            changed = await self.lab.core.schedule_pass() or changed
            if not changed:
                return
        raise AssertionError("it does not settle")

    async def anew(self, where: Where) -> None:
        """Another server on the same database; agents and clients go to it."""
        old = self.lab.core
        await old.close()
        core = await Core.open(where, clock=self.lab.clock, data_dir=old.data_dir, name="lab")
        core.serving.health = self.health
        await self.lab.ann.close()
        await self.lab.boss.close()
        transport = httpx.ASGITransport(create_app(core))
        self.lab.ann = Client.connect("http://lab", await core.token_for("ann"), transport)
        self.lab.boss = Client.connect("http://lab", await core.token_for("boss"), transport)
        self.lab.core = core
        for agent in self.lab.agents:
            agent.core = core

    async def later(self, seconds: float) -> None:
        self.lab.clock.advance(timedelta(seconds=seconds))
        await self.settle()

    async def endpoint(self, name: str = "chat") -> Endpoint:
        return await self.lab.ann.endpoint(name)

    async def replicas(self, name: str = "chat") -> dict[str, tuple[int, str]]:
        return {r.name: (r.revision, r.phase.value) for r in (await self.endpoint(name)).replicas}


@pytest.fixture
async def play(lab: Lab) -> AsyncIterator[Play]:
    play, first = Play(lab), lab.core
    await lab.node("n1", cpu=8)
    for name in ("small", "large"):
        await play.model(name)
    yield play
    if lab.core is not first:
        await lab.core.close()


def done(outcome: Outcome) -> Outcome:
    assert outcome.refused == [], outcome.refused
    return outcome


async def deploy(play: Play, **more: Any) -> Outcome:
    outcome = done(await play.lab.ann.execute(DeployModel(model=more.pop("model", "small"), name="chat", **more)))
    await play.settle()
    return outcome


async def test_a_deployed_model_has_its_replicas_and_says_all_three_things(play: Play) -> None:
    play.health.slow = {"chat-1", "chat-2"}
    outcome = await deploy(play, replicas=2)
    assert [str(e.message) for e in outcome.effects] == [
        "Endpoint chat serves small in project red, with 2 replicas.",
        "chat-1 starts now on n1.",
        "chat-2 starts now on n1.",
    ]
    at = await play.endpoint()
    assert (at.state, at.health, at.traffic.reachable) == (EndpointState.ACTIVE, EndpointHealth.STARTING, False)
    assert str(at.traffic.reason) == "Its replicas (2) run, but are not ready yet."
    play.health.slow = {"chat-2"}
    at = await play.endpoint()
    assert (at.health, at.traffic.reachable, at.traffic.replicas) == (EndpointHealth.DEGRADED, True, 1)
    play.health.slow = set()
    at = await play.endpoint()
    assert (at.health, at.traffic.replicas, at.traffic.reason) == (EndpointHealth.HEALTHY, 2, None)
    assert (at.model, at.revision, at.url, at.owner, at.project) == ("small", 1, "/serve/chat", "ann", "red")
    sessions = (await play.lab.ann.sessions(type="inference")).items
    assert {s.name: s.user for s in sessions} == {"chat-1": "ann", "chat-2": "ann"}
    ports = {s.env["PORT"] for s in sessions}
    assert len(ports) == 2
    assert all(30000 <= int(p) < 40000 for p in ports)


async def test_a_preview_says_where_replicas_start_and_changes_nothing(play: Play) -> None:
    before = await play.lab.ann.preview(DeployModel(model="small", name="chat", replicas=2))
    assert [e.kind for e in before.effects] == ["creates", "starts", "starts"]
    assert (await play.lab.ann.endpoints()).total == 0
    assert (await play.lab.ann.sessions()).total == 0
    after = await play.lab.ann.execute(DeployModel(model="small", name="chat", replicas=2), expect=before.digest)
    assert done(after).digest == before.digest
    assert (await play.lab.ann.names()).endpoints == ["chat"]


async def test_a_replica_that_fits_nowhere_is_refused_before_anything_is_written(play: Play) -> None:
    outcome = await play.lab.ann.execute(DeployModel(model="small", name="chat", gpu=4))
    assert outcome.refused != []
    assert (await play.lab.ann.endpoints()).total == 0


async def test_one_that_waits_for_room_says_so(play: Play) -> None:
    await play.model("wide", cpu=6)
    await deploy(play, model="wide", replicas=2)
    at = await play.endpoint()
    assert [r.phase for r in at.replicas] == [Phase.HEALTHY, Phase.WAITING]
    assert at.replicas[1].reasons[0].code == "insufficient_resources"
    assert (at.health, at.traffic.reachable) == (EndpointHealth.DEGRADED, True)


async def test_scaling_up_starts_and_scaling_down_drains_and_both_are_undone(play: Play) -> None:
    await deploy(play)
    await play.later(10)
    done(await play.lab.ann.execute(ScaleEndpoint(endpoint="chat", replicas=3)))
    await play.settle()
    assert set(await play.replicas()) == {"chat-1", "chat-2", "chat-3"}
    done(await play.lab.ann.execute(Undo()))
    await play.settle()
    assert set(await play.replicas()) == {"chat-1"}
    outcome = done(await play.lab.ann.execute(ScaleEndpoint(endpoint="chat", replicas=0)))
    assert "answers no requests any more" in str(outcome.warnings[0])
    await play.settle()
    at = await play.endpoint()
    assert (at.replicas, at.health, str(at.traffic.reason)) == (
        [], EndpointHealth.STOPPED, "It is scaled to no replicas.",
    )  # fmt: skip
    again = await play.lab.ann.execute(ScaleEndpoint(endpoint="chat", replicas=0))
    assert again.refused[0].code == "conflict"


async def test_a_replica_that_fails_is_replaced_after_ever_longer_pauses_and_the_endpoint_says_why(play: Play) -> None:
    await deploy(play)
    agent = play.lab.agents[0]
    pauses = []
    for _ in range(4):
        await agent.exit(agent.running[0], 1)
        await play.settle()
        waited = 0
        while not agent.running:
            await play.later(1)
            waited += 1
        pauses.append(waited)
    assert pauses == [2, 4, 8, 16]
    at = await play.endpoint()
    assert str(at.reasons[0].message) == "4 replicas in a row have failed; see the output of the last one."
    await play.later(rollout.FORGIVEN_AFTER.total_seconds() + 1)
    assert (await play.endpoint()).reasons == []


async def test_a_replica_stopped_by_hand_is_replaced_at_once_and_nobody_is_blamed(play: Play) -> None:
    await deploy(play)
    first = (await play.endpoint()).replicas[0].session
    done(await play.lab.ann.execute(TerminateSessions(sessions=["chat-1"])))
    await play.settle()
    at = await play.endpoint()
    assert (at.replicas[0].phase, at.reasons) == (Phase.HEALTHY, [])
    assert at.replicas[0].session != first


async def test_a_waiting_replica_that_was_stopped_and_put_back_is_one_of_the_endpoint_again(play: Play) -> None:
    await play.model("wide", cpu=6)
    await deploy(play, model="wide", replicas=2)
    done(await play.lab.ann.execute(TerminateSessions(sessions=["chat-2"])))
    await play.settle()
    assert len(await play.replicas()) == 2
    done(await play.lab.ann.execute(Undo()))
    await play.lab.core.serving.keeper.step()
    async with play.lab.core.db.read() as db:
        gone = {row.session: row.gone for row in await db.scalars(select(ReplicaRow))}
    assert [gone[ident] for ident in play.lab.core.ledger.sessions] == [None, None, None]
    await play.settle()
    assert len(await play.replicas()) == 2
    assert (await play.lab.ann.sessions()).total == 2


async def test_a_replica_on_a_lost_node_gets_no_requests_at_once_and_has_a_stand_in(play: Play) -> None:
    await deploy(play)
    stay = await play.lab.node("n2", cpu=8)
    await play.lab.core.schedule_pass()
    first = play.lab.agents.pop(0)
    for _ in range(7):
        play.lab.clock.advance(timedelta(seconds=5))
        await stay.obey()
        await play.lab.core.schedule_pass()
    assert (await play.replicas())["chat-1"] == (1, "away")
    await play.settle()
    at = await play.endpoint()
    assert {r.name: (r.node, r.phase.value) for r in at.replicas} == {
        "chat-1": ("n1", "away"), "chat-2": ("n2", "healthy"),
    }  # fmt: skip
    assert (at.traffic.replicas, at.health) == (1, EndpointHealth.HEALTHY)
    play.lab.agents.append(first)
    await play.settle()
    assert len(await play.replicas()) == 1


async def test_a_sick_replica_is_not_asked_and_after_a_while_replaced(play: Play) -> None:
    await deploy(play, replicas=2)
    first = (await play.endpoint()).replicas[0]
    play.health.sick = {first.session}
    await play.settle()
    at = await play.endpoint()
    assert (at.health, at.traffic.replicas) == (EndpointHealth.DEGRADED, 1)
    await play.later(rollout.SICK_LIMIT.total_seconds())
    await play.later(3)
    assert first.session not in [r.session for r in (await play.endpoint()).replicas]
    assert (await play.endpoint()).health is EndpointHealth.HEALTHY


async def test_a_rolling_update_moves_replica_by_replica_and_undo_moves_back(play: Play) -> None:
    await deploy(play, replicas=2)
    outcome = await play.lab.ann.preview(DeployModel(model="large", name="chat"))
    assert [str(e.message) for e in outcome.effects] == [
        "chat moves from small to large, one replica after the other; requests are answered all the time.",
        "chat-3 starts now on n1.",
    ]
    play.health.slow = {"chat-3"}
    done(await play.lab.ann.execute(DeployModel(model="large", name="chat")))
    await play.settle()
    assert await play.replicas() == {"chat-1": (1, "healthy"), "chat-2": (1, "healthy"), "chat-3": (2, "starting")}
    assert (await play.endpoint()).former == 1
    play.health.slow = set()
    await play.settle()
    assert {revision for revision, _ in (await play.replicas()).values()} == {2}
    at = await play.endpoint()
    assert (at.model, at.revision, at.former, len(at.replicas)) == ("large", 2, None, 2)
    done(await play.lab.ann.execute(Undo()))
    await play.settle()
    at = await play.endpoint()
    assert (at.model, at.revision, {r.model for r in at.replicas}) == ("small", 1, {"small"})


async def test_an_update_whose_replica_never_gets_ready_is_given_up_and_the_old_ones_stay(play: Play) -> None:
    await play.model("stuck", ready_within=60)
    await deploy(play, replicas=2)
    play.health.slow = {"chat-3"}
    await deploy(play, model="stuck")
    await play.later(61)
    at = await play.endpoint()
    assert (at.revision, at.model, at.former) == (1, "small", None)
    assert str(at.reasons[0].message) == "chat stays at revision 1: a replica of 2 was not ready in time."
    assert {name: revision for name, (revision, _) in (await play.replicas()).items()} == {"chat-1": 1, "chat-2": 1}
    assert at.health is EndpointHealth.HEALTHY


async def test_a_deleted_endpoint_takes_no_requests_ends_and_comes_back_by_undo(play: Play) -> None:
    await deploy(play, replicas=2)
    outcome = done(await play.lab.ann.execute(DeleteEndpoint(endpoint="chat")))
    assert [e.kind for e in outcome.effects] == ["removes", "lost", "stops", "stops"]
    at = await play.endpoint()
    assert (at.state, at.traffic.reachable) == (EndpointState.DELETING, False)
    assert str(at.traffic.reason) == "It is being deleted; it takes no requests."
    await play.lab.core.schedule_pass()
    assert "chat" not in play.lab.core.serving.routes
    await play.settle()
    with pytest.raises(NotFound, match="There is no endpoint chat"):
        await play.endpoint()
    assert (await play.lab.ann.sessions()).total == 0
    assert (await play.lab.ann.execute(ScaleEndpoint(endpoint="chat", replicas=5))).refused[0].code == "not_found"
    done(await play.lab.ann.execute(Undo()))
    await play.settle()
    assert len(await play.replicas()) == 2


async def test_a_deletion_ends_in_time_even_if_a_replica_does_not(play: Play) -> None:
    await deploy(play)
    done(await play.lab.ann.execute(DeleteEndpoint(endpoint="chat")))
    await play.lab.core.schedule_pass()
    play.lab.clock.advance(rollout.DELETE_LIMIT)
    await play.lab.core.schedule_pass()
    with pytest.raises(NotFound):
        await play.endpoint()


async def test_a_server_that_is_killed_after_every_single_step_gets_there_too(play: Play, where: Where) -> None:
    """Nothing but rows is remembered: each pass is done by a server that has just been started."""
    await deploy(play, replicas=2)
    done(await play.lab.ann.execute(DeployModel(model="large", name="chat", replicas=3)))
    most = 0
    for _ in range(60):
        await play.anew(where)
        await play.lab.core.schedule_pass()
        for agent in play.lab.agents:
            await agent.obey()
        most = max(most, len(play.lab.core.ledger.sessions))
        at = await play.endpoint()
        assert at.traffic.replicas >= 2 or at.replicas == [], at
        if at.former is None and [r.revision for r in at.replicas] == [2, 2, 2]:
            break
    assert (at.model, at.health, at.traffic.replicas) == ("large", EndpointHealth.HEALTHY, 3)
    assert most <= 5  # three that are wanted, one more in the update, and one that is just ending
    done(await play.lab.ann.execute(DeleteEndpoint(endpoint="chat")))
    for _ in range(20):
        await play.anew(where)
        await play.lab.core.schedule_pass()
        for agent in play.lab.agents:
            await agent.obey()
    assert (await play.lab.ann.endpoints()).total == 0
    assert play.lab.core.ledger.sessions == {}


async def test_what_is_long_gone_is_forgotten(play: Play) -> None:
    await deploy(play)
    for days in (0, 2, 0):
        play.lab.clock.advance(timedelta(days=days))
        await play.settle()
        stopped = (await play.endpoint()).replicas[0].session
        done(await play.lab.ann.execute(TerminateSessions(sessions=[stopped])))
        await play.settle()
    async with play.lab.core.db.read() as db:
        rows = (await db.scalars(select(ReplicaRow))).all()
    assert sorted(row.gone is None for row in rows) == [False, False, True]


async def test_others_neither_see_nor_touch_it_and_a_colleague_only_sees_it(play: Play) -> None:
    await deploy(play)
    assert (await play.lab.eve.endpoints()).total == 0
    assert (await play.lab.eve.names()).endpoints == []
    with pytest.raises(NotFound):
        await play.lab.eve.endpoint("chat")
    for operation in (DeleteEndpoint(endpoint="chat"), ScaleEndpoint(endpoint="chat", replicas=3)):
        assert (await play.lab.eve.execute(operation)).refused[0].code == "not_found"
        assert (await play.lab.bob.execute(operation)).refused[0].code == "not_allowed"
    taken = await play.lab.eve.execute(DeployModel(model="small", name="chat"))
    assert "taken by an endpoint of another project" in str(taken.refused[0].message)
    assert (await play.lab.bob.endpoint("chat")).owner == "ann"
    done(await play.lab.boss.execute(ScaleEndpoint(endpoint="chat", replicas=2)))
    await play.settle()
    assert {s.user for s in (await play.lab.ann.sessions()).items} == {"ann"}


async def test_models_of_others_or_not_ready_cannot_be_deployed(play: Play) -> None:
    await play.model("secret", project="blue")
    await play.model("coming", state="installing")
    assert (await play.lab.ann.execute(DeployModel(model="secret"))).refused[0].code == "not_found"
    unknown = await play.lab.ann.execute(DeployModel(model="smal"))
    assert unknown.refused[0].candidates == ["small"]
    assert str((await play.lab.ann.execute(DeployModel(model="coming"))).refused[0].message) == (
        "Model coming is not ready: it is installing."
    )
    assert (await play.lab.ann.execute(DeployModel(model="small", runtime="vllm"))).refused[0].candidates == ["command"]


async def test_vllm_and_transformers_serve_the_same_models(play: Play) -> None:
    await play.model("chatty", runtime="vllm", source="org/chatty", env={"LOUD": "1"})
    done(await play.lab.ann.execute(DeployModel(model="chatty", runtime="transformers")))
    session = (await play.lab.ann.sessions()).items[0]
    assert (session.command or "").startswith("exec transformers serve")
    assert session.env["LOUD"] == "1"
    assert session.env["MODEL_PATH"] == str(play.lab.core.data_dir / "models" / "chatty")


async def test_a_replica_is_shown_its_models_files_whatever_its_recipe_says_and_nobody_else_is(play: Play) -> None:
    await play.model("chatty", runtime="vllm", source="org/chatty", env={"MODEL_PATH": "/etc"})
    done(await play.lab.ann.execute(DeployModel(model="chatty")))
    place = str(play.lab.core.data_dir / "models" / "chatty")
    done(await play.lab.ann.execute(StartSession(name="sly", command="cat $MODEL_PATH/*", env={"MODEL_PATH": place})))
    started = {work.name: work.shown for work in (await play.lab.agents[0].obey()).start}
    assert started == {"chatty-1": [place], "sly": []}


# ── sessions that are replicas, stopped by hand or with their node ───────────────────────────────


async def test_stopping_a_replica_says_that_another_comes_and_when_the_endpoint_can_not_be_reached(play: Play) -> None:
    await deploy(play, replicas=2)
    one = await play.lab.ann.preview(TerminateSessions(sessions=["chat-1"]))
    said = "chat-1 is a replica of chat; another is started in its place."
    assert [str(e.message) for e in one.effects if e.kind == "changes"] == [said]
    unreachable = "chat can't be reached until a new replica is ready."
    assert unreachable not in map(str, one.warnings)
    both = await play.lab.ann.preview(TerminateSessions(sessions=["chat-1", "chat-2"]))
    assert len([e for e in both.effects if e.kind == "changes"]) == 2
    assert unreachable in map(str, both.warnings)
    done(await play.lab.ann.execute(TerminateSessions(sessions=["chat-1"])))
    again = await play.lab.ann.preview(TerminateSessions(sessions=["chat-1"], force=True))
    assert [e for e in again.effects if e.kind == "changes"] == [], "its stand-in is on its way already"


async def test_a_drained_nodes_replicas_serve_until_others_do_elsewhere(play: Play) -> None:
    await deploy(play, replicas=2)
    await play.lab.node("n2", cpu=8)
    before = await play.lab.boss.preview(DrainNode(node="n1"))
    assert [str(e.message) for e in before.effects if e.target.startswith("chat-")] == [
        "chat-1, a replica of chat, serves on until another is ready elsewhere (15 min at most).",
        "chat-2, a replica of chat, serves on until another is ready elsewhere (15 min at most).",
    ]
    assert [*map(str, before.warnings)] == ["If there is no room for another within 15 min, chat can't be reached."]
    play.health.slow = {"chat-3", "chat-4"}
    done(await play.lab.boss.execute(DrainNode(node="n1")))
    await play.settle()
    at = await play.endpoint()
    assert (at.traffic.replicas, at.health) == (2, EndpointHealth.HEALTHY)
    assert {r.name: (r.node, r.phase.value) for r in at.replicas} == {
        "chat-1": ("n1", "healthy"), "chat-2": ("n1", "healthy"),
        "chat-3": ("n2", "starting"), "chat-4": ("n2", "starting"),
    }  # fmt: skip
    play.health.slow = {"chat-4"}
    await play.settle()
    assert (await play.endpoint()).traffic.replicas == 2
    play.health.slow = set()
    await play.settle()
    at = await play.endpoint()
    assert {r.name: r.node for r in at.replicas} == {"chat-3": "n2", "chat-4": "n2"}
    assert play.lab.core.ledger.sessions_on("n1") == []


async def test_without_room_elsewhere_a_drained_node_is_empty_when_the_time_is_over(play: Play) -> None:
    await deploy(play)
    done(await play.lab.boss.execute(DrainNode(node="n1")))
    await play.settle()
    await play.later(10 * 60)
    assert await play.replicas() == {"chat-1": (1, "healthy"), "chat-2": (1, "waiting")}
    await play.later(5 * 60)
    assert await play.replicas() == {"chat-2": (1, "waiting")}


async def test_a_node_that_is_taken_back_into_use_keeps_its_replicas(play: Play, where: Where) -> None:
    await deploy(play)
    done(await play.lab.boss.execute(DrainNode(node="n1")))
    await play.settle()
    await play.later(10 * 60)
    await play.anew(where)
    done(await play.lab.boss.execute(UncordonNode(node="n1")))
    await play.settle()
    assert await play.replicas() == {"chat-1": (1, "healthy")}
    done(await play.lab.boss.execute(DrainNode(node="n1")))
    await play.settle()
    await play.later(10 * 60)
    assert "chat-1" in await play.replicas(), "its time counts anew"


async def test_with_a_grace_of_nothing_a_drained_nodes_replicas_are_stopped_like_all_else(play: Play) -> None:
    await deploy(play)
    outcome = await play.lab.boss.preview(DrainNode(node="n1", grace=0))
    assert "chat can't be reached until a new replica is ready." in map(str, outcome.warnings)
    done(await play.lab.boss.execute(DrainNode(node="n1", grace=0)))
    await play.settle()
    assert await play.replicas() == {"chat-1": (1, "waiting")}
