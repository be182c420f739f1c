"""The demo's scenario is worth a first look."""

from collections import Counter
from datetime import timedelta
from pathlib import Path

import cluster.simulator
from cluster.models import NodeStatus, SessionState
from cluster.simulator.loading import load

DEMO = Path(cluster.simulator.__file__).parent / "scenarios" / "demo.yaml"


def test_the_demo_is_a_whole_lab_with_something_of_everything() -> None:
    scenario = load(DEMO).scenario
    assert len(scenario.nodes) == 20
    assert 40 <= len(scenario.sessions) <= 50
    assert {node.status for node in scenario.nodes} == set(NodeStatus)
    states = Counter(session.status for session in scenario.sessions)
    assert states[SessionState.RUNNING] > 20
    assert set(states) >= {"pending", "held", "running", "terminated", "error", "cancelled"}
    assert {node.rack for node in scenario.nodes} == {"r1", "r2"}


def test_the_demo_has_the_stories_an_admin_looks_for() -> None:
    sessions = {session.name: session for session in load(DEMO).scenario.sessions}
    idle = sessions["explore-embeddings"]
    assert (idle.gpu, idle.gpu_utilization, idle.started) == (1, 0.0, timedelta(hours=-54))
    assert "CUDA out of memory" in str(sessions["swin-large"].log)
    assert sessions["vit-huge"].node_count == 3
    assert sessions["ko-7b-eval"].depends_on == ["ko-7b-pretrain"]
