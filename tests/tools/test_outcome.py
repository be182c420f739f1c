"""Plan cards before, results after, and errors as results."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from cluster.errors import Conflict, NotAllowed, NotFound, StorageFull, Unavailable
from cluster.models import (
    CordonNode,
    DeleteFolder,
    DrainNode,
    Effect,
    Operation,
    Outcome,
    Reason,
    Resources,
    S,
    StartSession,
    TerminateSessions,
    Undo,
)
from tools.base import Card, Context, Result
from tools.registry import default_registry
from tools.resolve import Ready, link


async def previewed(ctx: Context, name: str, /, **raw: Any) -> Card:
    tool = default_registry().get(name)
    assert tool is not None
    found = await link(tool, raw, ctx)
    assert isinstance(found, Ready), found
    card = await tool.preview(ctx, found.args)
    assert card is not None
    return card


async def done(ctx: Context, name: str, /, **raw: Any) -> Result:
    tool = default_registry().get(name)
    assert tool is not None
    found = await link(tool, raw, ctx)
    assert isinstance(found, Ready), found
    return await tool.run(ctx, found.args, key="k1", expect="d1")


def answering(client: Any, **parts: Any) -> None:
    client.outcome = lambda operation, dry: Outcome(operation=operation, dry_run=dry, digest="d1", **parts)


def stops(name: str, owner: str | None = None) -> Effect:
    return Effect(kind="stops", target=name, message=S("{name} is stopped.", name=name), owner=owner)


async def test_a_card_says_what_happens_what_is_left_and_how_it_is_put_back(ctx: Context, client: Any) -> None:
    starts = Effect(kind="starts", target="bert", message=S("{name} starts on {node}.", name="bert", node="a100-03"))
    later = Effect(
        kind="delayed", target="vit-large", owner="minho", message=S("{name} waits longer.", name="vit-large")
    )
    undo = S("stop {name}", name="bert")
    answering(client, effects=[starts, later], quota_left=Resources(gpu=4, cpu=10), undo=undo)
    card = await previewed(ctx, "start_session", command="python train.py", gpu=2)
    assert card.plan is not None
    assert card.digest == "d1"
    assert [(e.text, e.tone, e.owner) for e in card.plan.effects] == [
        ("bert starts on a100-03.", "good", None),
        ("vit-large waits longer.", "warn", "minho"),
    ]
    assert card.plan.warnings == ["Quota left afterwards: 4 GPUs, 10 cores."]
    assert (card.plan.undo, card.plan.type_word, card.plan.risk) == ("stop bert", None, "W")


async def test_the_operation_is_what_the_arguments_say(ctx: Context, client: Any) -> None:
    await previewed(
        ctx, "start_session", command="x", memory="64g", time_limit="90m", start_at="tomorrow 09:00", gpu=0.5
    )
    sent = client.operations[0]
    assert isinstance(sent, StartSession)
    assert (sent.memory, sent.time_limit, sent.gpu, sent.type) == (64 * 2**30, 5400, 0.5, "batch")
    assert sent.start_at == datetime.fromisoformat("2026-03-03T09:00:00+09:00")


@pytest.mark.parametrize(
    ("name", "raw", "operation"),
    [
        (
            "terminate_sessions",
            {"sessions": ["resnet"], "force": True},
            TerminateSessions(sessions=["resnet-sweep"], force=True),
        ),
        ("cordon_node", {"node": "gpu 1", "reason": "bad fan"}, CordonNode(node="gpu-01", reason="bad fan")),
        ("drain_node", {"node": "gpu-01", "grace": "10m"}, DrainNode(node="gpu-01", grace=600)),
        ("delete_folder", {"folder": "imagenet"}, DeleteFolder(folder="imagenet")),
        ("undo", {}, Undo()),
    ],
)  # fmt: skip
async def test_each_tool_sends_its_operation(
    ctx: Context, client: Any, name: str, raw: dict[str, Any], operation: Operation
) -> None:
    await done(ctx, name, **raw)
    assert client.operations == [operation]


@pytest.mark.parametrize(
    ("effects", "word"),
    [
        ([stops("short")], None),
        ([stops("long")], "long"),
        ([stops("short", owner="alice")], None),
        ([stops("short", owner="minho")], "short"),
        ([stops("short"), stops("waits", owner="minho")], "terminate"),
        ([stops("short"), stops("long")], "terminate"),
        ([stops("short"), stops("waits")], None),
        ([stops("a"), stops("b"), stops("c"), stops("d")], "terminate"),
    ],
)
async def test_heavy_work_asks_for_a_typed_word(
    ctx: Context, client: Any, effects: list[Effect], word: str | None
) -> None:
    client.run("short", hours=1)
    client.run("long", hours=4)
    client.run("waits", hours=None)
    answering(client, effects=effects)
    card = await previewed(ctx, "terminate_sessions", sessions=["resnet-sweep"])
    assert card.plan is not None
    assert card.plan.type_word == word
    assert all(line.owner != "alice" for line in card.plan.effects)


async def test_a_refused_preview_has_no_plan_and_the_reasons(ctx: Context, client: Any) -> None:
    why = S("{asked} GPUs asked, no node has more than {available}.", asked=9.0, available=8.0)
    answering(client, refused=[Reason(code="impossible", message=why, asked=9, available=8)])
    card = await previewed(ctx, "start_session", command="x", gpu=9)
    assert card.plan is None
    assert card.refusal is not None
    assert card.refusal.answer == "9 GPUs asked, no node has more than 8."
    assert card.refusal.data == {"status": "refused", "reasons": ["impossible"], "message": card.refusal.answer}


async def test_a_world_that_moved_is_recognisable(ctx: Context, client: Any) -> None:
    answering(client, refused=[Reason(code="state_changed", message=S("The cluster has changed since you looked."))])
    result = await done(ctx, "terminate_sessions", sessions=["resnet-sweep"])
    assert (result.status, result.reasons[0].code) == ("refused", "state_changed")


async def test_a_result_says_what_was_done_and_how_to_take_it_back(ctx: Context, client: Any) -> None:
    changed = Effect(kind="changes", target="gpu-01", message=S("{node} takes no new work.", node="gpu-01"))
    answering(client, effects=[changed], undo=S("open {node} again", node="gpu-01"), audit_id="a-18")
    result = await done(ctx, "cordon_node", node="gpu-01")
    assert (result.status, result.audit_id, result.rows, result.rows_of) == ("done", "a-18", ["gpu-01"], "node")
    assert result.answer == "gpu-01 takes no new work now."
    assert result.data["undo"] == "open gpu-01 again"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NotFound(S("There is no session x."), ["resnet-sweep"]), "refused", "not_found"),
        (NotAllowed(S("Only an admin may do that.")), "refused", "not_allowed"),
        (Conflict(S("It has ended already.")), "refused", "conflict"),
        (StorageFull(S("The disk is full.")), "refused", "storage_full"),
        (Unavailable(S("The server does not answer.")), "failed", "unavailable"),
    ],
)
async def test_an_error_becomes_a_result_with_its_own_sentence(
    ctx: Context, client: Any, error: Exception, status: str, code: str
) -> None:
    tool = default_registry().get("list_sessions")
    assert tool is not None
    client.error = error
    result = await tool.run(ctx, tool.arguments())
    assert (result.status, result.reasons[0].code) == (status, code)
    assert result.answer.startswith(str(error))


async def test_a_dead_server_at_preview_is_a_refusal_on_the_card(ctx: Context, client: Any) -> None:
    client.error = Unavailable(S("The server does not answer."))
    card = await previewed(ctx, "cordon_node", node="gpu-01")
    assert (card.plan, card.refusal and card.refusal.status) == (None, "failed")


async def test_what_was_probably_meant_is_offered_once(ctx: Context, client: Any) -> None:
    client.error = NotFound(S("There is no session x; the nearest is {name}.", name="bert"), ["bert", "vit"])
    tool = default_registry().get("get_cluster_status")
    assert tool is not None
    result = await tool.run(ctx, tool.arguments())
    assert result.answer == "There is no session x; the nearest is bert. Did you mean one of these: vit?"


async def test_long_plans_are_bounded_and_say_so(ctx: Context, client: Any) -> None:
    answering(client, effects=[stops(f"s{i}") for i in range(50)])
    card = await previewed(ctx, "terminate_sessions", sessions=["resnet-sweep"])
    assert card.plan is not None
    assert len(card.plan.effects) == 20
    assert card.plan.warnings == ["30 more effects are not shown."]


async def test_times_are_told_as_people_there_read_them(ctx: Context, client: Any) -> None:
    waits = Effect(kind="waits", target="x", message=S("It can start at {time}.", time="2026-03-03T00:40+00:00"))
    answering(client, effects=[waits])
    card = await previewed(ctx, "cordon_node", node="gpu-01")
    assert card.plan is not None
    assert card.plan.effects[0].text == "It can start at 2026-03-03 09:40."


async def test_the_rows_of_a_result_are_what_was_asked_for(ctx: Context, client: Any) -> None:
    answering(client, effects=[stops("bert-tune"), stops("vit-large")])
    drained = await done(ctx, "drain_node", node="gpu-01")
    stopped = await done(ctx, "terminate_sessions", sessions=["bert-tune", "vit-large"])
    made = await done(ctx, "create_folder", name="new-data")
    undone = await done(ctx, "undo")
    assert [r.rows for r in (drained, stopped, made, undone)] == [
        ["gpu-01"],
        ["bert-tune", "vit-large"],
        ["new-data"],
        [],
    ]


async def test_the_same_card_in_korean(context: Callable[..., Context], client: Any) -> None:
    answering(client, effects=[])
    card = await previewed(context(language="ko"), "cordon_node", node="gpu-01")
    assert card.plan is not None
    assert "gpu-01" in card.plan.title
    assert any("가" <= c <= "힣" for c in card.plan.title)
