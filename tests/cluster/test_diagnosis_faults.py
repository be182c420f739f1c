"""A cluster with every fault planted, and its healthy twin: each is found where it is, and none where there is none."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from cluster.client import Client
from cluster.errors import NotFound
from cluster.models import Diagnosis, Finding, RunPipeline
from cluster.simulator.world import World
from tools.registry import default_registry

HEAD = """
name: faults
clock: 2026-03-02T09:00:00+09:00
resource_groups: [{name: train, selector: concentrated}, {name: small}]
users: [{name: sora, role: admin}, {name: minho, projects: [nlp]}, {name: alice, projects: [vision]}]
projects: [{name: nlp}, {name: vision}]
pipelines: [{name: nightly, project: nlp, user: minho, steps: [{name: only, command: "sleep 60; exit 3"}]}]
models: [{name: gemma}]
quotas: [{user: alice, gpu: 4}]
"""
SICK = (
    HEAD
    + """
nodes:
  - {name: "n-[01-02]", resource_group: train, cpu: 64, memory: 512g, gpu: 8, gpu_model: A100-80G}
  - {name: n-lost, resource_group: train, cpu: 8, memory: 64g, status: lost}
  - {name: n-hot, resource_group: small, cpu: 64, memory: 512g, gpu: 8, gpu_model: A100-80G, temperature: 89}
  - {name: n-shut, resource_group: small, cpu: 8, memory: 64g, status: cordoned, reason: "fan ordered"}
  - {name: n-done, resource_group: small, cpu: 8, memory: 64g, status: draining, reason: "firmware"}
folders: [{name: ckpt, project: nlp, size: 98g, quota: 100g}, {name: over, project: nlp, size: 11g, quota: 10g}]
sessions:
  - {name: hung, user: minho, type: batch, gpu: 3, status: running, node: n-01, started: -9h, gpu_utilization: 0.01,
     command: "python a.py", log: "RuntimeError: CUDA out of memory. Tried to allocate 4 GiB\\nwaiting ..."}
  - {name: nan, user: minho, type: batch, gpu: 3, status: running, node: n-02, started: -2h, gpu_utilization: 0.9,
     command: "python b.py", log: "step 1 loss nan\\nstep 2 loss nan"}
  - {name: ecc, user: minho, type: batch, gpu: 1, status: running, node: n-01, started: -2h, gpu_utilization: 0.9,
     command: "python c.py", log: "CUDA error: uncorrectable ECC error encountered"}
  - {name: late, user: minho, type: batch, gpu: 1, status: running, node: n-02, started: -1h, submitted: -1h,
     gpu_utilization: 0.9, command: "python d.py"}
  - {name: oom, user: minho, type: batch, gpu: 2, status: error, result: failure, exit_code: 1, started: -8h,
     ended: -7h, command: "python e.py",
     log: "step 412\\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 12 GiB"}
  - {name: bare, user: minho, type: batch, status: error, result: failure, exit_code: 1, started: -8h, ended: -7h,
     command: "python f.py", log: "ModuleNotFoundError: No module named 'flash_attn'"}
  - {name: image, user: minho, type: batch, status: error, result: failure, exit_code: 125, started: -8h, ended: -7h,
     command: "python g.py", log: "manifest for pytorch:9.9 not found: manifest unknown"}
  - {name: full, user: minho, project: nlp, type: batch, status: error, result: failure, exit_code: 1, started: -8h,
     ended: -7h, mounts: [ckpt], command: "python h.py", log: "OSError: [Errno 28] No space left on device"}
  - {name: killed, user: minho, type: batch, memory: 8g, status: error, result: failure, exit_code: 137, started: -8h,
     ended: -7h, command: "python i.py", log: "loading ..."}
  - {name: typo, user: minho, type: batch, status: error, result: failure, exit_code: 127, started: -8h, ended: -7h,
     command: "pyhton j.py"}
  - {name: slow, user: minho, type: batch, status: error, result: failure, exit_code: 143, started: -8h, ended: -6h,
     time_limit: 2h, command: "python k.py", log: "epoch 3"}
  - {name: gone, user: minho, type: batch, status: terminated, result: lost, started: -8h, ended: -7h, command: "m"}
  - {name: odd, user: minho, type: batch, status: error, result: failure, exit_code: 3, started: -8h, ended: -7h,
     command: "python n.py", log: "bye"}
  - {name: huge, user: minho, type: batch, gpu: 99, status: pending, submitted: -2h, command: "python o.py",
     resource_group: train}
  - {name: wide, user: minho, type: batch, gpu: 6, status: pending, submitted: -5h, command: "python p.py",
     resource_group: train}
  - {name: base, user: minho, type: batch, gpu: 6, status: pending, submitted: -8h, command: "python p.py",
     resource_group: train}
  - {name: after, user: minho, type: batch, status: held, submitted: -8h, depends_on: [base], command: "python q.py"}
  - {name: holds, user: alice, type: batch, gpu: 4, status: running, node: n-hot, started: -2h, gpu_utilization: 0.8,
     command: "python r.py"}
  - {name: held, user: alice, type: batch, gpu: 2, status: held, submitted: -2h, command: "python s.py",
     resource_group: small}
endpoints:
  - {name: chat, model: gemma, replicas: 2, project: vision, resource_group: small, health: degraded}
  - {name: dead, model: gemma, replicas: 1, project: vision, resource_group: small, health: unhealthy}
"""
)
PLANTED = {
    ("node_lost", "n-lost"), ("node_hot", "n-hot"), ("node_cordoned", "n-shut"), ("node_drained", "n-done"),
    ("cuda_oom", "hung"), ("idle_gpu", "hung"), ("loss_nan", "nan"), ("gpu_error", "ecc"),
    ("cuda_oom", "oom"), ("module_missing", "bare"), ("image_missing", "image"), ("no_space", "full"),
    ("killed", "killed"), ("command_missing", "typo"), ("time_limit", "slow"), ("session_lost", "gone"),
    ("failed", "odd"), ("never_starts", "huge"), ("fragmented", "wide"), ("fragmented", "base"),
    ("starved", "base"), ("starved", "wide"), ("dependency", "after"), ("quota", "held"),
    ("endpoint_degraded", "chat"), ("endpoint_unreachable", "dead"),
    ("folder_nearly_full", "ckpt"), ("folder_full", "over"),
}  # fmt: skip
WELL = (
    HEAD
    + """
nodes:
  - {name: "n-[01-02]", resource_group: train, cpu: 64, memory: 512g, gpu: 8, gpu_model: A100-80G}
  - {name: n-hot, resource_group: small, cpu: 64, memory: 512g, gpu: 8, gpu_model: A100-80G, temperature: 71}
folders: [{name: ckpt, project: nlp, size: 60g, quota: 100g}, {name: over, project: nlp, size: 900g}]
sessions:
  - {name: got-over-it, user: minho, type: batch, gpu: 6, status: running, node: n-01, started: -9h,
     gpu_utilization: 0.9, command: "python a.py", log: "RuntimeError: CUDA out of memory, retrying with 32\\nloss 2.1"}
  - {name: nan-once, user: minho, type: batch, gpu: 3, status: running, node: n-02, started: -2h, gpu_utilization: 0.9,
     command: "python b.py", log: "step 1 loss nan\\nstep 2 loss 2.7\\nno nan found\\nscaler skipped a nan step"}
  - {name: just-begun, user: minho, type: interactive, gpu: 1, status: running, node: n-01, started: -5m,
     gpu_utilization: 0.0}
  - {name: again, id: s-old, user: minho, type: batch, status: error, result: failure, exit_code: 1, submitted: -9h,
     started: -8h, ended: -7h, command: "python e.py", log: "CUDA out of memory"}
  - {name: again, id: s-new, user: minho, type: batch, status: terminated, result: success, exit_code: 0,
     submitted: -6h, started: -6h, ended: -5h, command: "python e.py", log: "done"}
  - {name: long-ago, user: minho, type: batch, status: error, result: failure, exit_code: 1, started: -60h,
     ended: -50h, command: "python f.py", log: "CUDA out of memory"}
  - {name: fine, user: minho, type: batch, status: terminated, result: success, exit_code: 0, started: -3h, ended: -2h,
     command: "python g.py", log: "warning: CUDA out of memory was avoided"}
  - {name: stopped, user: minho, type: batch, status: cancelled, submitted: -3h, ended: -2h, command: "python h.py"}
  - {name: next, user: minho, type: batch, status: held, submitted: -8h, depends_on: [got-over-it], command: "q"}
  - {name: full-house, user: minho, type: batch, gpu: 8, gpu_model: A100-80G, status: pending, submitted: -20m,
     resource_group: train, command: "python i.py"}
endpoints:
  - {name: chat, model: gemma, replicas: 2, project: vision, resource_group: small}
"""
)


@asynccontextmanager
async def asked(text: str, user: str | None = None) -> AsyncIterator[tuple[World, Client]]:
    world = await World.open(text)
    client = world.client(user) if user else world.client()
    try:
        yield world, client
    finally:
        await client.close()
        await world.close()


async def everything(client: Client, monkeypatch: pytest.MonkeyPatch) -> Diagnosis:
    monkeypatch.setattr("cluster.diagnosis.reads.SHOWN", 1000)
    return await client.diagnosis()


def found(diagnosis: Diagnosis) -> set[tuple[str, str]]:
    return {(f.code, f.target) for f in diagnosis.findings}


async def test_every_planted_fault_is_found_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asked(SICK) as (_, client):
        assert found(await everything(client, monkeypatch)) == PLANTED


async def test_in_a_healthy_cluster_nothing_is_found_and_it_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asked(WELL) as (_, client):
        diagnosis = await everything(client, monkeypatch)
    assert found(diagnosis) == set()
    said = [str(clause) for clause in diagnosis.summary]
    assert said == ["the nodes (3) are fine", "the queue is fine (2 waiting)", "the endpoints (1) answer"]
    assert diagnosis.looked_at["nodes"] == 3


async def test_the_worst_comes_first_and_no_more_than_twenty_are_told_but_all_are_counted() -> None:
    async with asked(SICK) as (_, client):
        diagnosis = await client.diagnosis()
    order = ["error", "warning", "info"]
    ranks = [order.index(f.severity) for f in diagnosis.findings]
    assert (len(ranks), ranks) == (20, sorted(ranks))
    assert diagnosis.total == len(PLANTED) == sum(diagnosis.counts.values())


async def test_each_proposal_is_a_call_of_a_tool_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asked(SICK, "minho") as (_, minho), asked(SICK) as (_, sora):
        proposals = [f.proposal for c in (minho, sora) for f in (await everything(c, monkeypatch)).findings]
    for proposal in filter(None, proposals):
        tool = default_registry().get(proposal.tool)
        assert tool is not None, proposal.tool
        tool.arguments.model_validate(proposal.arguments)


async def test_what_would_help_fits_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asked(SICK, "minho") as (_, client):
        by = {f.target: f for f in (await everything(client, monkeypatch)).findings}
    assert _call(by["nan"]) == ("terminate_sessions", {"sessions": ["nan"]})
    assert _call(by["full"]) == ("set_folder_quota", {"folder": "ckpt", "quota": "125g"})
    tool, arguments = _call(by["killed"])
    assert (tool, arguments["memory"], arguments["command"]) == ("start_session", "16g", "python i.py")
    assert _call(by["slow"])[1]["time_limit"] == "240m"
    assert _call(by["n-shut"]) == ("", {}), "it is closed for a reason, and not for long"


def _call(finding: Finding) -> tuple[str, dict[str, object]]:
    return (finding.proposal.tool, {**finding.proposal.arguments}) if finding.proposal else ("", {})


async def test_only_an_admin_is_offered_what_only_an_admin_may_and_nobody_a_start_of_anothers_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with asked(SICK) as (_, sora):
        admins = {f.target: f for f in (await everything(sora, monkeypatch)).findings}
    assert _call(admins["held"]) == ("set_quota", {"user": "alice", "gpu": 6.0})
    assert _call(admins["ecc"])[0] == "cordon_node"
    assert _call(admins["killed"]) == ("get_session_logs", {"session": "killed"})
    async with asked(SICK, "alice") as (_, alice):
        hers = {f.target: f for f in (await everything(alice, monkeypatch)).findings}
    assert _call(hers["held"]) == ("get_quota", {"user": "alice"})


async def test_others_work_is_not_looked_at_only_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asked(SICK, "alice") as (_, client):
        diagnosis = await everything(client, monkeypatch)
        with pytest.raises(NotFound):
            await client.diagnosis("oom")
    mine = {f.target for f in diagnosis.findings if f.kind in ("session", "folder", "pipeline")}
    assert mine == {"held"}
    assert diagnosis.not_seen == 8
    assert "CUDA" not in diagnosis.model_dump_json()


@pytest.mark.parametrize(
    ("target", "codes"),
    [
        ("oom", ["cuda_oom"]),
        ("n-lost", ["node_lost"]),
        ("n-01", ["cuda_oom", "gpu_error", "idle_gpu"]),
        ("dead", ["endpoint_unreachable", "node_hot"]),
        ("late", []),
    ],
)
async def test_of_one_thing_only_what_concerns_it_is_told(target: str, codes: list[str]) -> None:
    async with asked(SICK) as (_, client):
        diagnosis = await client.diagnosis(target)
    assert sorted(f.code for f in diagnosis.findings) == codes
    assert diagnosis.target == target


async def test_why_a_session_failed_is_told_with_its_line_also_long_afterwards() -> None:
    async with asked(WELL) as (_, client):
        diagnosis = await client.diagnosis("long-ago")
    finding = diagnosis.findings[0]
    assert finding.quote is not None
    assert (finding.code, finding.quote.text) == ("cuda_oom", "CUDA out of memory")


async def test_a_session_that_waits_as_it_should_is_told_why() -> None:
    async with asked(WELL) as (_, client):
        diagnosis = await client.diagnosis("full-house")
    assert [f.code for f in diagnosis.findings] == ["waits"]
    assert str(diagnosis.summary[0]) == "nothing is wrong with full-house"


async def test_a_healthy_session_node_and_endpoint_are_said_to_be_so() -> None:
    async with asked(WELL) as (_, client):
        said = {t: [str(s) for s in (await client.diagnosis(t)).summary] for t in ("got-over-it", "n-01", "chat")}
    assert said == {
        "got-over-it": ["nothing is wrong with got-over-it", "it runs and uses 90 % of its 6.0 GPU"],
        "n-01": ["nothing is wrong with n-01", "it answers; 7.0 of 8.0 GPU are held"],
        "chat": ["nothing is wrong with chat", "2 of 2 replicas take requests"],
    }


async def test_a_pipeline_whose_latest_run_failed_is_told_with_its_step_until_a_run_succeeds() -> None:
    async with asked(WELL, "minho") as (world, client):
        await client.execute(RunPipeline(pipeline="nightly"))
        await world.settle()
        await world.advance(timedelta(minutes=5))
        failed = [f for f in (await client.diagnosis()).findings if f.kind == "pipeline"]
        assert ["(only)" in str(f.message) for f in failed] == [True]
        await client.execute(RunPipeline(pipeline="nightly"))
        await world.settle()
        assert not [f for f in (await client.diagnosis()).findings if f.kind == "pipeline"]


async def test_looking_changes_nothing() -> None:
    async with asked(SICK) as (_, client):
        before = [await client.sessions(limit=100), await client.nodes(), await client.events(), await client.audit()]
        await client.diagnosis()
        after = [await client.sessions(limit=100), await client.nodes(), await client.events(), await client.audit()]
    assert before == after
