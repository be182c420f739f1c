"""What Prometheus reads is what there is."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime

import httpx
import pytest
from prometheus_client import parser
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.registry import Collector

from cluster.api.app import create_app
from cluster.db.tables import QuotaRow
from cluster.directory import Directory
from cluster.journal.chain import Link
from cluster.ledger import Ledger
from cluster.live import LiveNode
from cluster.metrics import Seen
from cluster.models import CordonNode, StartSession
from cluster.simulator.lab import GIB, Lab

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scraped(lab: Lab, user: str = "boss", accept: str = "") -> httpx.Response:
    headers = {"Authorization": f"Bearer {lab.core.tokens.passing(user)}", "Accept": accept}
    transport = httpx.ASGITransport(create_app(lab.core))
    async with httpx.AsyncClient(transport=transport, base_url="http://lab") as http:
        return await http.get("/metrics", headers=headers)


async def samples(lab: Lab) -> Samples:
    reply = await scraped(lab)
    assert reply.status_code == 200
    families = parser.text_string_to_metric_families(reply.text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(found: Samples, name: str, **labels: str) -> float:
    return found[f"helmsman_{name}", frozenset(labels.items())]


def total(found: Samples, name: str) -> float:
    return sum(amount for (each, _), amount in found.items() if each == f"helmsman_{name}")


async def test_prometheuss_own_parsers_read_both_formats(lab: Lab) -> None:
    await lab.node("n1", gpus=2)
    await lab.ann.execute(StartSession(command="job", gpu=1))
    text, open_ = await scraped(lab), await scraped(lab, accept=OPENMETRICS)
    assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert open_.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    names = {f.name for f in parser.text_string_to_metric_families(text.text)}
    also = {f.name for f in openmetrics.text_string_to_metric_families(open_.text)}
    assert {"helmsman_nodes", "helmsman_used_gpus", "helmsman_pass_duration_seconds"} <= names & also
    assert any(name.startswith("helmsman_process_") for name in names)


async def test_only_an_admin_reads_metrics(lab: Lab) -> None:
    assert (await scraped(lab, "ann")).status_code == 403


async def test_it_tells_capacity_use_and_who_waits(lab: Lab) -> None:
    await lab.node("n1", cpu=8, gpus=2)
    await lab.node("n2", cpu=4)
    await lab.ann.execute(StartSession(command="a", gpu=0.5, cpu=3, memory=GIB))
    await lab.ann.execute(StartSession(command="b", cpu=4))
    await lab.eve.execute(StartSession(command="c", cpu=8))
    await lab.boss.execute(CordonNode(node="n2"))
    await lab.later(120)
    found = await samples(lab)
    gpu, plain = {"resource_group": "default", "gpu_model": "A100-80G"}, {"resource_group": "default", "gpu_model": ""}
    assert value(found, "capacity_gpus", **gpu) == 2
    assert value(found, "used_gpus", **gpu) == 0.5
    assert value(found, "free_gpus", **gpu) == 1.5
    assert total(found, "used_cpu_cores") == 7
    assert value(found, "free_cpu_cores", **plain) == 0
    assert value(found, "nodes", resource_group="default", status="cordoned") == 1
    assert value(found, "sessions", resource_group="default", state="pending") == 1
    assert value(found, "queue_longest_wait_seconds", resource_group="default") == pytest.approx(120)
    assert value(found, "queue_wait_seconds_bucket", le="60.0") == 0
    assert value(found, "queue_wait_seconds_bucket", le="300.0") == 1
    assert value(found, "agent_beat_age_longest_seconds") == 0


async def test_it_tells_what_projects_with_a_quota_hold_and_may_hold(lab: Lab) -> None:
    await lab.node("n1", cpu=8)
    async with lab.core.db.write() as db:
        db.add(QuotaRow(scope="project", name="red", cpu=6.0, sessions=9))
    await lab.ann.execute(StartSession(command="a", cpu=2))
    await lab.ann.execute(StartSession(command="b", cpu=1))
    found = await samples(lab)
    assert value(found, "quota_limit", project="red", resource="cpu") == 6
    assert value(found, "quota_used", project="red", resource="cpu") == 3
    assert value(found, "quota_used", project="red", resource="sessions") == 2
    assert ("helmsman_quota_limit", frozenset({("project", "red"), ("resource", "gpu")})) not in found


async def test_the_journals_head_is_there_to_be_kept_elsewhere(lab: Lab) -> None:
    await lab.node("n1")
    await lab.boss.execute(CordonNode(node="n1"))
    found = await samples(lab)
    check = await lab.boss.verify_audit()
    digits = f"{int(value(found, 'journal_head')):013x}"
    assert value(found, "journal_rows_total") == 1
    assert (check.hash or "").startswith(digits)
    assert (await lab.boss.verify_audit(check.newest, digits)).whole


async def test_labels_do_not_grow_with_use(lab: Lab) -> None:
    await lab.node("n1", cpu=64)
    await lab.ann.execute(StartSession(command="job"))
    before = len(await samples(lab))
    for number in range(20):
        await lab.ann.execute(StartSession(command="job", name=f"job-{number}"))
        await lab.node(f"more-{number}", cpu=1)
    assert len(await samples(lab)) == before


async def test_others_add_what_they_know(lab: Lab) -> None:
    class Requests(Collector):
        def collect(self) -> Iterable[GaugeMetricFamily]:
            yield GaugeMetricFamily("helmsman_endpoint_requests", "Requests under way.", value=3)

    lab.core.metrics.add(Requests())
    assert value(await samples(lab), "endpoint_requests") == 3


def test_a_look_at_a_hundred_times_the_nodes_takes_no_more_than_in_proportion() -> None:
    def seconds(count: int) -> float:
        ledger, now = Ledger(), datetime(2026, 3, 2, tzinfo=UTC)
        for number in range(count):
            ledger.set_node(node(f"n{number}", now))
        times = []
        for _ in range(5):
            began = time.perf_counter()
            Seen.of(ledger, Directory(), now, Link(), 0)
            times.append(time.perf_counter() - began)
        return min(times)

    assert seconds(10_000) < 100 * 5 * seconds(100)


def node(name: str, now: datetime) -> LiveNode:
    return LiveNode(
        name=name, resource_group="g", status="alive", reason=None, lost_from=None, cpu=8.0, memory=GIB,
        gpu_model="A100", devices=[{}] * 8, rack=None, isolation="process", address=None, same_host=False,
        sample={}, last_beat=now,
    )  # fmt: skip
