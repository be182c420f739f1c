"""Simulated agents speak the real agents' protocol and live plausible, repeatable lives."""

import base64
from datetime import UTC, datetime, timedelta

from cluster.models import Beat, BeatReply, SessionType, StopOrder, Work, WorkId
from cluster.simulator.fleet import Fleet, Happening
from cluster.simulator.life import Kind, Life, kind_of
from cluster.simulator.node import SimulatedAgent
from cluster.simulator.scenario import NodeSpec

NOW = datetime(2026, 3, 2, tzinfo=UTC)
ID = WorkId(session="s-1", attempt=1)


class Orders:
    """A server that gives out prepared orders once and notes every beat."""

    def __init__(self, *replies: BeatReply) -> None:
        self.replies = list(replies)
        self.beats: list[Beat] = []

    async def beat(self, node: str, beat: Beat) -> BeatReply:
        self.beats.append(beat)
        return self.replies.pop(0) if self.replies else BeatReply()


def work(command: str | None = "python train.py", limit: float | None = 600, id_: WorkId = ID) -> Work:
    return Work(
        id=id_, name="x", user="alice", command=command, cpu=4, memory=2**30, devices={0: 1.0}, time_limit=limit
    )


def fleet() -> Fleet:
    node = NodeSpec(name="a100-01", cpu=64, memory=2**39, gpu=2, gpu_model="A100-80G")
    return Fleet({"a100-01": SimulatedAgent(node, seed=1)})


def told(server: Orders) -> list[tuple[str, int | None]]:
    return [(report.state, report.exit_code) for beat in server.beats for report in beat.reports]


def printed(server: Orders) -> str:
    return "".join(base64.b64decode(chunk.data).decode() for beat in server.beats for chunk in beat.logs)


async def test_work_runs_at_once_prints_and_ends_well_before_its_limit() -> None:
    all_, server = fleet(), Orders(BeatReply(start=[work()]))
    assert await all_.beat(server, NOW)
    assert await all_.beat(server, NOW)
    assert not await all_.beat(server, NOW)
    assert told(server) == [("preparing", None), ("running", None)]
    end = all_.next_event()
    assert end is not None
    assert NOW < end < NOW + timedelta(minutes=10)
    await all_.beat(server, end)
    assert told(server)[-1] == ("exited", 0)
    assert "loss" in printed(server)
    assert printed(server).endswith("done\n")
    assert all_.next_event() is None


async def test_output_is_told_in_one_piece_without_gaps_or_doubles() -> None:
    all_, server = fleet(), Orders(BeatReply(start=[work(limit=None)]))
    for second in range(0, 400, 17):
        await all_.beat(server, NOW + timedelta(seconds=second))
    offset = 0
    for chunk in (chunk for beat in server.beats for chunk in beat.logs):
        assert chunk.offset == offset
        offset += len(base64.b64decode(chunk.data))
    steps = [line.split()[1] for line in printed(server).splitlines()]
    assert steps == [str(25 * n) for n in range(1, len(steps) + 1)]
    assert len(steps) == 19


async def test_an_order_that_comes_twice_starts_nothing_twice() -> None:
    all_, server = fleet(), Orders(BeatReply(start=[work()]), BeatReply(start=[work()]))
    await all_.beat(server, NOW)
    await all_.beat(server, NOW)
    await all_.beat(server, NOW)
    assert told(server) == [("preparing", None), ("running", None)]
    assert server.beats[-1].running == [ID]


async def test_what_is_stopped_says_so_and_what_was_never_here_is_lost() -> None:
    other = WorkId(session="s-2", attempt=1)
    orders = BeatReply(stop=[StopOrder(id=ID), StopOrder(id=other)])
    all_, server = fleet(), Orders(BeatReply(start=[work(None, limit=None)]), orders)
    await all_.beat(server, NOW)
    await all_.beat(server, NOW + timedelta(hours=5))
    await all_.beat(server, NOW + timedelta(hours=5))
    assert told(server)[2:] == [("exited", 143), ("lost", None)]
    assert str(server.beats[-1].reports[0].detail) == "It was stopped."


async def test_a_limit_ends_what_would_run_on() -> None:
    all_, server = fleet(), Orders(BeatReply(start=[work("sleep 900", limit=60)]))
    await all_.beat(server, NOW)
    await all_.beat(server, NOW + timedelta(seconds=61))
    last = server.beats[-1].reports[-1]
    assert (last.exit_code, last.at) == (143, NOW + timedelta(seconds=60))
    assert str(last.detail) == "It reached its time limit of 1 min."


async def test_measurements_move_and_stay_plausible() -> None:
    all_, server = fleet(), Orders(BeatReply(start=[work(None)]))
    for minute in range(30):
        await all_.beat(server, NOW + timedelta(minutes=minute))
    samples = [beat.sample for beat in server.beats[1:] if beat.sample]
    busy = [sample.devices[0].utilization for sample in samples]
    assert len(set(busy)) > 5
    assert all(use is not None and 0 <= use <= 1 for use in busy)
    assert all((sample.devices[1].utilization, sample.devices[1].used) == (0, 0) for sample in samples)
    assert all(20 < (sample.temperature or 0) < 90 for sample in samples)
    assert all(sample.devices[0].memory == 80 * 2**30 for sample in samples)


async def test_the_same_seed_lives_the_same_life_and_another_seed_another() -> None:
    def lines(seed: int) -> list[str]:
        life = Life(seed, "s-1", Kind.TRAINING, NOW, "python train.py")
        return life.lines(NOW, NOW + timedelta(minutes=5))

    assert lines(1) == lines(1)
    assert lines(1) != lines(2)


async def test_faults_come_and_go() -> None:
    all_, server = fleet(), Orders(BeatReply(start=[work(None)]))
    all_.happenings = [
        Happening(NOW + timedelta(minutes=1), "hot", "a100-01"),
        Happening(NOW + timedelta(minutes=2), "lost", "a100-01"),
        Happening(NOW + timedelta(minutes=3), "recovered", "a100-01"),
        Happening(NOW + timedelta(minutes=4), "crash", session="s-1"),
    ]
    await all_.beat(server, NOW)
    cool = all_.agents["a100-01"].sample(NOW).temperature or 0
    assert all_.next_event() == NOW + timedelta(minutes=1)
    all_.happen(NOW + timedelta(minutes=1))
    assert (all_.agents["a100-01"].sample(NOW).temperature or 0) > cool + 20
    all_.happen(NOW + timedelta(minutes=2))
    beats = len(server.beats)
    await all_.beat(server, NOW + timedelta(minutes=2))
    assert len(server.beats) == beats
    all_.happen(NOW + timedelta(minutes=4))
    await all_.beat(server, NOW + timedelta(minutes=4))
    assert told(server)[-1] == ("exited", 1)
    assert "RuntimeError" in printed(server)


async def test_a_copy_goes_its_own_way() -> None:
    all_, server = fleet(), Orders(BeatReply(start=[work(None)]))
    await all_.beat(server, NOW)
    twin = all_.copy()
    twin.agents["a100-01"].crash("s-1", NOW)
    assert list(all_.agents["a100-01"].pieces) == [("s-1", 1, 0)]
    assert list(twin.agents["a100-01"].pieces) == []


def test_kinds_follow_from_what_is_run() -> None:
    assert kind_of(SessionType.INFERENCE, "vllm serve x", 1) == Kind.SERVING
    assert kind_of(SessionType.INTERACTIVE, None, 1) == Kind.NOTEBOOK
    assert kind_of(SessionType.BATCH, "python train.py", 1) == Kind.TRAINING
    assert kind_of(SessionType.BATCH, "python clean.py", 0) == Kind.DATA
    assert kind_of(SessionType.BATCH, "sleep 30", 0) == Kind.COMMAND
