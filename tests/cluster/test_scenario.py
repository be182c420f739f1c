"""Scenario files: what they may say, and what is said of their mistakes."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cluster.errors import ScenarioError
from cluster.models import NodeStatus, SessionState
from cluster.simulator.loading import load
from cluster.simulator.scenario import expand

WHOLE = """
name: riverside
clock: 2026-03-02T09:00:00+09:00
resource_groups:
  - {name: train, policy: drf, selector: least_fragmentation, backfill: true}
  - {name: serve, policy: fifo, selector: dispersed}
nodes:
  - {name: "a100-[01-04]", resource_group: train, cpu: 128, memory: 1024g, gpu: 8, gpu_model: A100-80G, rack: r1}
  - {name: cpu-01, resource_group: serve, cpu: 64, memory: 256g, status: cordoned, reason: "bad DIMM"}
projects:
  - {name: vision, gpu: 32, storage: 20t}
users:
  - {name: alice, email: alice@example.com, role: user, projects: [vision]}
images:
  - {name: "pytorch:2.8-cuda12"}
folders:
  - {name: imagenet, project: vision, size: 1.2t, quota: 2t, files: [{path: train/part-000.tar, size: 4g}]}
sessions:
  - {name: resnet-sweep, id: s-7f3a, user: alice, project: vision, type: batch, image: "pytorch:2.8-cuda12",
     gpu: 4, cpu: 32, memory: 256g, status: running, node: a100-02, started: -3h, gpu_utilization: 0.03,
     command: "python sweep.py", log: "CUDA out of memory"}
  - {name: vit-large, id: s-91bc, user: bob, project: vision, type: batch, gpu: 16, status: pending, submitted: -40m}
models:
  - {name: gemma-2-9b-it, parameters: 9b, format: safetensors, license: gemma}
endpoints:
  - {name: chat-prod, model: gemma-2-9b-it, replicas: 2, gpu: 1, project: vision,
     requests_per_second: 41, latency_p95: 1.9}
pipelines:
  - {name: nightly-eval, project: vision, steps: [{name: prepare}, {name: evaluate, after: [prepare]}]}
quotas:
  - {user: alice, gpu: 8}
faults:
  - {at: +5m, node: a100-03, kind: lost}
"""


def mistakes(text: str) -> list[str]:
    """What `load` says of a faulty scenario, line by line."""
    with pytest.raises(ScenarioError) as caught:
        load(text)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def test_the_formats_own_example_loads() -> None:
    loaded = load(WHOLE)
    scenario = loaded.scenario
    assert [node.name for node in scenario.nodes] == ["a100-01", "a100-02", "a100-03", "a100-04", "cpu-01"]
    assert scenario.nodes[4].status == NodeStatus.CORDONED
    assert scenario.now == datetime(2026, 3, 2, 0, 0, tzinfo=UTC)
    sweep, large, *replicas = scenario.sessions
    assert [(s.name, s.gpu, s.status, s.project) for s in replicas] == [
        (f"chat-prod-{n}", 1, SessionState.RUNNING, "vision") for n in (1, 2)
    ]
    assert (sweep.memory, sweep.status) == (256 * 2**30, SessionState.RUNNING)
    assert scenario.when(sweep.started or timedelta()) == datetime(2026, 3, 1, 21, 0, tzinfo=UTC)
    assert scenario.when(large.submitted or timedelta()) == datetime(2026, 3, 1, 23, 20, tzinfo=UTC)
    (rank,) = loaded.placements["s-7f3a"]
    assert (rank.node, dict(rank.devices)) == ("a100-02", dict.fromkeys(range(4), 1.0))
    assert scenario.folders[0].size == round(1.2 * 2**40)
    assert scenario.catalog.endpoints[0].latency_p95 == 1.9
    assert scenario.faults[0].when == timedelta(minutes=5)


def test_somebody_with_sessions_who_is_no_user_is_taken_as_one_and_said_so() -> None:
    loaded = load(WHOLE)
    assert [user.name for user in loaded.scenario.users] == ["alice", "admin", "bob"]
    assert [str(note) for note in loaded.notes] == ["bob is not among the users, but has sessions: taken as a user"]


def test_every_section_may_be_left_out() -> None:
    scenario = load("name: empty\n").scenario
    assert (scenario.nodes, scenario.sessions) == ([], [])
    assert load("").scenario.users[0].role == "admin"


def test_what_a_missing_section_would_hold_follows_from_the_rest() -> None:
    scenario = load("""
nodes: [{name: n1, gpu: 2, resource_group: train}]
sessions: [{name: x, user: minho, project: nlp, gpu: 1, status: running}]
""").scenario
    assert [group.name for group in scenario.resource_groups] == ["train"]
    assert [project.name for project in scenario.projects] == ["nlp"]
    assert [user.name for user in scenario.users] == ["minho", "admin"]
    assert scenario.sessions[0].resource_group == "train"


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("a100-[01-03]", ["a100-01", "a100-02", "a100-03"]),
        ("r[1-2]-n[09-10]", ["r1-n09", "r1-n10", "r2-n09", "r2-n10"]),
        ("plain", ["plain"]),
        ("[1-2]x", ["1x", "2x"]),
    ],
)
def test_ranges(name: str, names: list[str]) -> None:
    assert expand(name) == names


@pytest.mark.parametrize("name", ["n[5-2]", "n[0-99999999]", "n[1-9999]-[1-9999]"])
def test_ranges_that_make_no_sensible_number_of_names_are_mistakes(name: str) -> None:
    assert mistakes(f'nodes: [{{name: "{name}"}}]') == [f"line 1: the range in {name} makes no names"]


def test_all_mistakes_are_reported_at_once_with_their_lines() -> None:
    assert mistakes("""
clock: 2026-03-02T09:00:00+09:00
resource_groups:
  - {name: train, policy: fofi}
nodes:
  - {name: "a100-[01-02]", resource_group: train, gpu: 8, memory: 12 bananas}
  - {name: a100-02, resource_group: trian}
  - name: n3
    resource_group: train
    gpus: 4
projects:
  - {gpu: 4}
  - {name: vision}
users:
  - {name: alice, projects: [visoin], role: boss}
sessions:
  - {name: one, user: alcie, gpu: 1}
  - {name: two, user: alice, node: a100-03, status: running}
  - {name: three, user: alice, started: yesterday-ish}
  - {name: three, user: alice, depends_on: [four], mounts: [data]}
quotas:
  - {gpu: 4}
faults:
  - {at: +5m, kind: lost}
""") == [
        "line 4: policy: fofi is none of 'fifo', 'lifo', 'drf', 'fair_share' or 'short_first'",
        "line 6: memory: 12 bananas is not a size; write for example 64g",
        "line 7: a100-02 is there already, in line 6",
        "line 7: there is no resource group trian in this scenario; did you mean train?",
        "line 10: there is no key gpus in nodes; did you mean gpu?",
        "line 12: name is missing",
        "line 15: role: boss is none of 'user', 'project_admin' or 'admin'",
        "line 15: there is no project visoin in this scenario; did you mean vision?",
        "line 17: there is no user alcie in this scenario; did you mean alice?",
        "line 18: there is no node a100-03 in this scenario; did you mean a100-02?",
        "line 19: started: yesterday-ish is not a duration or time; write for example 90m",
        "line 20: three is there already, in line 19",
        "line 20: there is no folder data in this scenario",
        "line 20: there is no session four in this scenario",
        "line 22: a quota is of a user or of a project",
        "line 24: a fault of kind lost needs a node",
    ]


def test_a_key_given_twice_is_a_mistake() -> None:
    assert mistakes("nodes:\n  - name: n1\n    gpu: 2\n    gpu: 4\n") == ["line 4: gpu is given twice here"]


def test_an_unknown_section_is_named_with_the_nearest() -> None:
    assert mistakes("name: x\nnode: []\n") == ["line 2: there is no key node in a scenario; did you mean nodes?"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nodes: [\n  - {name: n1", "line 2: this is not YAML"),
        ("- just\n- a list\n", "line 1: a scenario is a mapping of keys such as nodes and sessions"),
        ("name: x\nnodes: 7\n", "line 2: nodes: 7 can't be used (Input should be a valid list)"),
        ("name: x\nnodes:\n  - a100-01\n", "line 3: 0: a100-01 can't be used"),
        ("name: x\nfolders: [{name: f, files: [{size: 4g}]}]\n", "line 2: path is missing"),
    ],
)
def test_files_that_are_no_scenarios_at_all(text: str, said: str) -> None:
    assert mistakes(text)[0].startswith(said)


def test_a_running_session_that_does_not_fit_its_node_is_a_mistake() -> None:
    assert mistakes("""
nodes: [{name: n1, gpu: 2, cpu: 8, memory: 64g}]
sessions:
  - {name: one, user: a, gpu: 1.5, node: n1, status: running}
  - {name: two, user: a, gpu: 2, node: n1, status: running}
  - {name: three, user: a, gpu: 1, node: n1, status: running}
  - {name: four, user: a, cpu: 32, node: n1, status: preparing}
  - {name: five, user: a, gpu: 4, status: running}
""") == [
        "line 4: 1.5 GPUs on one node asked, but a share sits on one device: ask for less than 1 or a whole number.",
        "line 6: three is running on n1 with 1 GPUs, but only 0 are left there",
        "line 7: four is preparing on n1 with 32 cores, but only 7 are left there",
        "line 8: five is running, but no node of default has room for it",
    ]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"nowhere\.yaml can't be read: No such file"):
        load(tmp_path / "nowhere.yaml")
    (tmp_path / "latin.yaml").write_bytes("name: caf\xe9".encode("latin-1"))
    with pytest.raises(ScenarioError, match="not UTF-8"):
        load(tmp_path / "latin.yaml")
