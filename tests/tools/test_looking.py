"""What the reading tools answer, as a person would read it."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tools.base import Context, Result
from tools.registry import default_registry
from tools.resolve import Ready, link
from tools.views import Facts, Table, Text


async def look(ctx: Context, name: str, /, **raw: Any) -> Result:
    tool = default_registry().get(name)
    assert tool is not None
    found = await link(tool, raw, ctx)
    assert isinstance(found, Ready), found
    return await tool.run(ctx, found.args)


def lines(result: Result) -> list[str]:
    """The rows of a table as plain text."""
    assert isinstance(result.view, Table)
    return [" | ".join(cell.text for cell in row) for row in result.view.rows]


async def test_sessions_are_counted_first_and_listed_with_what_they_hold(ctx: Context) -> None:
    result = await look(ctx, "list_sessions")
    assert result.answer == "7 sessions: 1 pending, 6 running; the longest wait is 4 h."
    assert lines(result)[:2] == [
        "resnet-sweep | running, idle | alice | vision | 2 | 8 | 64 GiB | 3 % | a100-03 | 3 h",
        "vit-large | pending | minho | vision | 16 | 8 | 64 GiB | – | – | 4 h",
    ]
    assert result.rows == ["resnet-sweep", "vit-large", "bert-tune", "llama-ft-01", "nightly", "s-4e01", "s-4e02"]


async def test_names_that_two_have_are_shown_as_ids_which_link(ctx: Context) -> None:
    result = await look(ctx, "list_sessions")
    for name in result.rows:
        shown = await look(ctx, "get_session", session=name)
        assert shown.status == "done"


async def test_filters_reach_the_server_as_they_were_linked(ctx: Context, client: Any) -> None:
    await look(ctx, "list_sessions")
    assert client.asked.pop() == {"limit": 200}
    await look(ctx, "list_sessions", user="민호", sort_by="gpu", order="desc", limit=1)
    assert client.asked == [{"limit": 1, "user": "minho", "sort_by": "gpu", "order": "desc"}]


async def test_the_first_of_many_is_told_by_itself(ctx: Context) -> None:
    result = await look(ctx, "list_sessions", limit=1)
    assert result.answer == "resnet-sweep (alice): running, 2 GPUs, 8 cores, 64 GiB, 3 h."


async def test_idle_ones_are_counted_by_what_they_hold(ctx: Context, client: Any) -> None:
    client.sessions_list = client.sessions_list[:1]
    assert (await look(ctx, "list_sessions", idle=True)).answer == "1 idle session holds 2 GPUs, 8 cores, 64 GiB."


async def test_no_session_is_said_plainly(ctx: Context, client: Any) -> None:
    client.sessions_list = []
    assert (await look(ctx, "list_sessions")).answer == "No session fits that."


async def test_a_long_list_is_bounded_in_both_dresses(ctx: Context, client: Any) -> None:
    one = client.sessions_list[0]
    client.sessions_list = [one.model_copy(update={"id": f"s-{i:04}", "name": f"job-{i}"}) for i in range(1000)]
    result = await look(ctx, "list_sessions")
    assert isinstance(result.view, Table)
    assert (len(result.view.rows), result.view.note) == (20, "980 more; narrow it down or ask for more rows.")
    assert result.data["total"] == 1000
    assert len(json.dumps(result.data)) < 6000


async def test_a_session_says_where_it_runs_and_why_it_waits(ctx: Context) -> None:
    result = await look(ctx, "get_session", session="resnet")
    assert isinstance(result.view, Facts)
    known = {label: cell.text for label, cell in result.view.facts}
    assert (known["Node"], known["Started"], known["Holds"]) == (
        "a100-03 (GPU 2, 3)",
        "06:00",
        "2 GPUs, 8 cores, 64 GiB",
    )
    waiting = await look(ctx, "explain_pending", session="vit-large")
    assert waiting.answer == "vit-large waits: 16 GPUs asked, at most 4 free on one node of train."
    assert (await look(ctx, "explain_pending", session="bert-tune")).answer == "bert-tune does not wait: it is running."


async def test_output_is_shown_verbatim(ctx: Context) -> None:
    result = await look(ctx, "get_session_logs", session="bert-tune", tail=2)
    assert isinstance(result.view, Text)
    assert (result.view.code, result.view.text) == (True, "epoch 1\n[red]not markup[/red]\n")


async def test_nodes_say_what_is_free(ctx: Context) -> None:
    result = await look(ctx, "list_nodes")
    assert result.answer == "6 nodes: 5 alive, 1 cordoned; 20 of 48 GPUs are free."
    assert lines(result)[0] == "a100-01 | alive | train | 4/8 | A100-80G | 64/128 | 512 GiB | 50 % | 61"
    one = await look(ctx, "get_node", node="a100 1번")
    assert one.answer == "a100-01 is alive; free: 4 GPUs, 64 cores, 512 GiB of 8 GPUs, 128 cores, 1 TiB."


async def test_the_state_of_the_cluster_in_one_sentence(ctx: Context) -> None:
    result = await look(ctx, "get_cluster_status")
    assert result.answer == "24 of 48 GPUs are free; running: 6, waiting: 1, the longest for 2 h."


async def test_a_quota_says_used_and_limit(ctx: Context, client: Any) -> None:
    result = await look(ctx, "get_quota", user="me")
    assert client.asked[-1] == {"user": "alice", "project": None}
    assert (result.answer, lines(result)) == ("alice uses 8 of 8 GPUs.", ["alice | user | 8 / 8 | 0 | 0 B | 0 B | 0"])


@pytest.mark.parametrize(
    ("tool", "raw", "answer"),
    [
        ("list_folders", {}, "1 folder, 1.2 TiB."),
        ("list_resource_groups", {}, "2 resource groups."),
        ("list_users", {"project": "nlp"}, "1 user."),
        ("list_users", {"role": "project admin"}, "No user fits that."),
        ("list_projects", {}, "2 projects."),
        ("list_images", {"query": "torch"}, "1 image."),
        ("list_events", {"severity": "error", "since": "3h"}, "1 event."),
        ("list_events", {"since": "90m"}, "Nothing happened that fits."),
        ("get_audit_log", {"user": "me"}, "1 action."),
    ],
)
async def test_each_reading_tool_answers(ctx: Context, tool: str, raw: dict[str, Any], answer: str) -> None:
    assert (await look(ctx, tool, **raw)).answer == answer


async def test_answers_and_headings_come_in_korean(context: Callable[..., Context]) -> None:
    result = await look(context(language="ko"), "list_sessions")
    assert isinstance(result.view, Table)
    assert result.answer == "세션 7개: 대기 1, 실행 중 6. 가장 오래 기다린 시간은 4시간입니다."
    assert result.view.columns[:3] == ["세션", "상태", "사용자"]
