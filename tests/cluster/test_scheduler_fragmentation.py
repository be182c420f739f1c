"""Where a session leaves the fewest GPUs useless for what people usually ask."""

from dataclasses import replace

import numpy as np
import pytest

from cluster.scheduler import matches_model
from cluster.scheduler.fleet import UNIT, Fleet, Need
from cluster.scheduler.fragmentation import USUAL, Asked, Mix, device, score
from cluster.scheduler.room import Room
from cluster.scheduler.selectors import Mood
from cluster.scheduler.state import NodeView

GIB = 2**30


def node(name: str, devices: tuple[float, ...], cpu: float = 64, free: float | None = None, **more: str) -> NodeView:
    return NodeView(name, "train", True, cpu, 512 * GIB, cpu if free is None else free, 512 * GIB, devices, **more)


def need(gpu: float, cpu: float = 1, model: str | None = None) -> Need:
    return Need("train", cpu, GIB, gpu, model)


def mix(*needs: Need) -> Mix:
    asked = Asked()
    for each in needs:
        asked.count(each, 1)
    return asked.mix


def chosen(nodes: list[NodeView], wanted: Need, of: Mix) -> str:
    room = Room.of(Fleet(nodes))
    scores = score(room, wanted, room.fleet.eligible(wanted), of)
    return room.fleet.nodes[int(scores.argmin())].name


def on(devices: tuple[float, ...], wanted: Need, of: Mix) -> tuple[int, ...]:
    return device(Room.of(Fleet([node("n", devices)])), 0, wanted, Mood(of))


def test_a_share_goes_where_its_rest_is_of_use_and_not_simply_to_the_fullest_device() -> None:
    asked = mix(need(0.5), need(0.3))
    assert on((0.8, 0.9), need(0.3), asked) == (1,)  # 0.8 is 0.5 + 0.3, and 0.6 is 0.3 + 0.3: nothing is left
    assert on((0.8, 0.5), need(0.5), asked) == (1,)
    assert on((0.3, 0.5), need(0.3), asked) == (0,)


def test_whole_devices_are_those_that_nobody_uses() -> None:
    assert on((1.0, 0.5, 1.0, 1.0), need(2), USUAL) == (0, 2)


def test_a_node_that_is_free_as_a_whole_stays_so_for_those_who_ask_for_all_of_it() -> None:
    nodes = [node("a", (1.0,) * 8), node("b", (1.0,) * 7 + (0.5,) * 4)]
    asked = mix(need(0.6), need(1), need(8))
    assert chosen(nodes, need(1), asked) == chosen(nodes, need(0.6), asked) == "b"


def test_a_session_without_gpus_spares_the_cores_that_free_gpus_need() -> None:
    nodes = [node("a", (1.0,) * 8), node("b", (0.0,) * 8)]
    assert chosen(nodes, need(0, cpu=16), mix(need(1, cpu=8))) == "b"


def test_a_session_of_few_cores_goes_where_cores_are_short() -> None:
    nodes = [node("a", (1.0,) * 8), node("b", (1.0,) * 8, free=16)]
    asked = mix(need(1, cpu=8), need(1, cpu=2))
    assert chosen(nodes, need(1, cpu=2), asked) == "b"
    assert chosen(nodes, need(1, cpu=8), asked) == "a"


def test_a_session_of_little_memory_goes_where_memory_is_short() -> None:
    nodes = [node("a", (1.0,) * 8), replace(node("b", (1.0,) * 8), memory_free=64 * GIB)]
    large, small = replace(need(1), memory=32 * GIB), replace(need(1), memory=4 * GIB)
    assert chosen(nodes, small, mix(small, large)) == "b"
    assert chosen(nodes, large, mix(small, large)) == "a"


def test_models_that_others_ask_for_by_name_are_left_to_them() -> None:
    nodes = [node("a", (1.0, 1.0), gpu_model="H100"), node("b", (1.0, 1.0), gpu_model="T4")]
    assert chosen(nodes, need(1), mix(need(1), need(1, model="H100"), need(2, model="H100"))) == "b"
    assert chosen(nodes, need(1), mix(need(1), need(1, model="T4"), need(2, model="T4"))) == "a"


def test_equal_nodes_go_by_name_and_the_fuller_before_the_emptier() -> None:
    same = [node("a", (1.0, 1.0)), node("b", (1.0, 1.0))]
    room = Room.of(Fleet(same))
    first, second = score(room, need(1), np.arange(2), mix(need(1)))
    assert first == second
    assert chosen([node("a", ()), node("b", (), free=8)], need(0), USUAL) == "b"


def test_a_nodes_score_is_its_own_whoever_is_looked_at_with_it() -> None:
    nodes = [node("a", (1.0, 0.5)), node("b", (0.7, 0.2, 1.0), gpu_model="T4"), node("c", ()), node("d", (1.0,) * 4)]
    room, of = Room.of(Fleet(nodes)), mix(need(0.5), need(0.2), need(1), need(2, cpu=8))
    for wanted in (need(0), need(0.5), need(1)):
        fitting = np.flatnonzero(room.fits(wanted, np.arange(4)))
        together = score(room, wanted, fitting, of)
        alone = [float(score(room, wanted, np.array([i]), of)[0]) for i in fitting]
        assert together.tolist() == pytest.approx(alone, abs=1e-12)


def test_the_mix_is_what_is_there_however_it_came_about() -> None:
    asked = Asked()
    assert asked.mix == USUAL
    for _ in range(5):
        asked.count(need(0.5), 3)
        asked.count(need(2, cpu=9), 1)
    asked.count(need(0.5), -14)
    asked.count(need(2, cpu=9), -5)
    asked.count(need(0, cpu=9), 4)
    assert asked.mix == mix(need(0.5))
    asked.count(need(0.5), -1)
    assert asked.mix == USUAL


def test_the_mix_is_the_same_object_until_something_is_asked_four_times_as_often() -> None:
    asked = Asked()
    asked.count(need(1), 8)
    asked.count(need(0.5), 2)
    before = asked.mix
    asked.count(need(1), 23)
    assert asked.mix is before
    asked.count(need(1), 1)
    assert [(part.share, weight) for part, weight in asked.mix.parts] == [(UNIT // 2, 4), (UNIT, 64)]
    assert [weight for _, weight in before.parts] == [4, 16]


def test_requests_for_nearly_as_many_cores_count_as_one_kind() -> None:
    assert len(mix(need(1, cpu=8), need(1, cpu=8.5), need(1, cpu=16)).parts) == 2


def test_one_of_several_models_will_do() -> None:
    assert matches_model("V100M16|V100M32", "V100M32")
    assert matches_model("a100 | h100", "NVIDIA H100-80G")
    assert not matches_model("V100M16|V100M32", "V100")
    assert not matches_model("|", "T4")
