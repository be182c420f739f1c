"""From arguments as a model gives them to typed ones, questions and refusals."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.errors import Unavailable
from cluster.models import S
from tools.base import Context
from tools.registry import default_registry
from tools.resolve import Linked, Question, Ready, Unfit, ask, link


async def linked(ctx: Context, name: str, /, **raw: Any) -> Linked:
    tool = default_registry().get(name)
    assert tool is not None
    return await link(tool, raw, ctx)


async def given_of(ctx: Context, name: str, /, **raw: Any) -> dict[str, Any]:
    found = await linked(ctx, name, **raw)
    assert isinstance(found, Ready), found
    return found.args.given()


async def question_of(ctx: Context, name: str, /, **raw: Any) -> Question:
    found = await linked(ctx, name, **raw)
    assert isinstance(found, Question), found
    return found


async def refusal_of(ctx: Context, name: str, /, **raw: Any) -> str:
    found = await linked(ctx, name, **raw)
    assert isinstance(found, Unfit), found
    assert found.result.status == "refused"
    return found.result.answer


async def test_everything_in_one_call_becomes_typed(ctx: Context) -> None:
    args = await given_of(
        ctx,
        "start_session",
        image="pytorch",
        command="python train.py --lr 0.1",
        gpu="네 장",
        memory="64 gigs",
        gpu_model="a100",
        project="Vision",
        mounts="imagenet, checkpoints",
        env=["LR=0.1", "SEED=7"],
        time_limit="an hour and a half",
        start_at="내일 오전 6시",
        priority="20",
    )
    assert args == {
        "image": "pytorch:2.8-cuda12",
        "command": "python train.py --lr 0.1",
        "gpu": 4,
        "memory": "64g",
        "gpu_model": "A100-80G",
        "project": "vision",
        "mounts": ["imagenet", "checkpoints"],
        "env": {"LR": "0.1", "SEED": "7"},
        "time_limit": "90m",
        "start_at": "2026-03-03T06:00:00+09:00",
        "priority": 20,
    }


async def test_what_is_said_per_node_becomes_totals(ctx: Context) -> None:
    args = await given_of(
        ctx, "start_session", command="x", gpu_per_node=8, cpu_per_node=32, memory_per_node="256g", node_count=2
    )
    assert args == {"command": "x", "gpu": 16, "cpu": 64, "memory": "512g", "node_count": 2}


async def test_a_total_that_contradicts_the_amount_per_node_is_refused(ctx: Context) -> None:
    said = await refusal_of(ctx, "start_session", command="x", gpu_per_node=8, node_count=2, gpu=8)
    assert "gpu is given twice" in said


async def test_me_is_who_asks(context: Callable[..., Context]) -> None:
    for word in ("me", "my", "내", "저"):
        assert await given_of(context(user="jiwoo"), "list_sessions", user=word) == {"user": "jiwoo"}


async def test_people_and_nodes_are_found_as_they_are_called(ctx: Context) -> None:
    assert await given_of(ctx, "list_sessions", user="민호", node="a100 3번") == {"user": "minho", "node": "a100-03"}


async def test_fixed_values_are_understood_in_other_words(ctx: Context) -> None:
    args = await given_of(
        ctx, "list_sessions", status="Waiting", sort_by="GPU utilization", order="highest", idle="yes"
    )
    assert args == {"status": "pending", "sort_by": "gpu_utilization", "order": "desc", "idle": True}


async def test_an_id_stays_an_id_and_a_name_a_name(ctx: Context) -> None:
    assert await given_of(ctx, "get_session", session="S-7F3A") == {"session": "s-7f3a"}
    assert await given_of(ctx, "get_session", session="7f3a") == {"session": "s-7f3a"}
    assert await given_of(ctx, "get_session", session="resnet") == {"session": "resnet-sweep"}


async def test_a_live_session_goes_before_an_ended_one(ctx: Context) -> None:
    assert await given_of(ctx, "get_session", session="llama-ft") == {"session": "llama-ft-01"}
    assert await given_of(ctx, "terminate_sessions", sessions=["nightly"]) == {"sessions": ["nightly"]}


async def test_two_live_sessions_of_one_name_are_a_question_with_their_ids(ctx: Context) -> None:
    question = await question_of(ctx, "terminate_sessions", sessions=["twins"])
    assert question.text == "twins fits 2: s-4e01, s-4e02. Which one?"
    assert question.choices == ["s-4e01", "s-4e02"]
    for choice in question.choices:
        assert await given_of(ctx, "terminate_sessions", sessions=[choice]) == {"sessions": [choice]}


async def test_a_name_that_fits_two_is_a_question(ctx: Context) -> None:
    question = await question_of(ctx, "get_node", node="gpu")
    assert (question.argument, question.choices) == ("node", ["gpu-01", "gpu-02"])


async def test_a_guess_is_taken_for_a_look_but_asked_before_work_is_lost(ctx: Context) -> None:
    assert await given_of(ctx, "get_session", session="bert-tnue") == {"session": "bert-tune"}
    question = await question_of(ctx, "terminate_sessions", sessions=["bert-tnue"])
    assert question.text == "Do you mean bert-tune?"
    assert question.choices == ["bert-tune"]
    question = await question_of(ctx, "drain_node", node="gqu-01")
    assert question.choices == ["gpu-01"]


async def test_a_node_is_found_by_its_gpus_where_its_name_does_not_tell(ctx: Context, client: Any) -> None:
    for node, model in zip(client.nodes_list, ["H100-80G", "L40S", "H100-80G", "L40S", "L40S", "L40S"], strict=True):
        node.gpu_model = model
    renamed = zip(client.nodes_list, ["big-1", "small-1", "big-2", "small-2", "small-3", "small-4"], strict=True)
    client.nodes_list = [n.model_copy(update={"name": name}) for n, name in renamed]
    client.fresh = ctx.names.model_copy(
        update={"nodes": [n.name for n in client.nodes_list], "gpu_models": ["H100-80G", "L40S"]}
    )
    assert await given_of(ctx, "get_node", node="the second h100 box") == {"node": "big-2"}
    assert await given_of(ctx, "get_node", node="l40s 3번") == {"node": "small-3"}
    assert (await question_of(ctx, "get_node", node="the h100 machine")).choices == ["big-1", "big-2"]
    assert (await question_of(ctx, "drain_node", node="the second h100")).choices == ["big-2"]


async def test_an_unknown_name_is_refused_with_the_nearest_ones(ctx: Context) -> None:
    assert await refusal_of(ctx, "get_node", node="a100-07") == (
        "There is no node a100-07. Did you mean one of these: a100-01, a100-02, a100-03, a100-04?"
    )
    assert await refusal_of(ctx, "list_sessions", user="zebediah") == "There is no user zebediah."


async def test_a_name_that_came_after_the_names_were_read_is_found(ctx: Context, client: Any) -> None:
    client.fresh = ctx.names.model_copy(update={"folders": ["imagenet", "new-data"]})
    assert await given_of(ctx, "delete_folder", folder="new-data") == {"folder": "new-data"}


async def test_a_missing_argument_is_a_question_with_choices(ctx: Context, context: Callable[..., Context]) -> None:
    question = await question_of(ctx, "drain_node")
    assert (question.text, question.argument) == ("Which node?", "node")
    assert question.choices[:2] == ["a100-01", "a100-02"]
    assert (await question_of(context(language="ko"), "drain_node")).text == "어느 노드를 말씀하시나요?"


async def test_a_session_needs_something_to_run(ctx: Context, context: Callable[..., Context], client: Any) -> None:
    assert (await question_of(ctx, "start_session", gpu=2)).argument == "image"
    client.fresh = ctx.names.model_copy(update={"images": []})
    bare = context(names=client.fresh)
    assert (await question_of(bare, "start_session", gpu=2)).text == "What should it run?"
    assert await given_of(bare, "start_session", image="anything:1") == {"image": "anything:1"}


@pytest.mark.parametrize(
    ("tool", "raw", "said"),
    [
        ("start_session", {"command": "x", "memory": "64"}, "64 has no unit as memory; say it like 64g or 512m."),
        ("start_session", {"command": "x", "memory": "lots"},
         "lots is not understood as memory; say it like 64g, 512m or 2t."),
        ("start_session", {"command": "x", "gpu": "some"}, "gpu is a number, not some."),
        ("start_session", {"command": "x", "priority": 5.5}, "priority is a whole number, not 5.5."),
        ("start_session", {"command": "x", "start_at": "yesterday"},
         "yesterday is past already (2026-03-01 00:00); say a later time."),
        ("start_session", {"command": "x", "env": "LR"}, "env is written KEY=VALUE, not LR."),
        ("start_session", {"command": "x", "colour": "red"}, "start_session has no argument colour."),
        ("list_sessions", {"status": "purple"}, "status can't be purple; it is one of: pending, scheduled"),
        ("list_sessions", {"idle": "perhaps"}, "idle is yes or no, not perhaps."),
        ("list_events", {"since": "whenever"},
         "whenever is not understood as since; say it like 24h or yesterday 18:00."),
        ("delete_folder", {"folder": "old-logs"}, "The folder old-logs is in the trash; restore it first."),
        ("start_session", {"command": "x", "priority": 101},
         "priority can't be used: Input should be less than or equal to 100."),
    ],
)  # fmt: skip
async def test_what_does_not_fit_is_refused_in_one_sentence(
    ctx: Context, tool: str, raw: dict[str, Any], said: str
) -> None:
    assert (await refusal_of(ctx, tool, **raw)).startswith(said)


async def test_a_dead_server_while_linking_is_a_failure_not_an_exception(ctx: Context, client: Any) -> None:
    client.error = Unavailable(S("The cluster's server does not answer."))
    found = await linked(ctx, "terminate_sessions", sessions=["twins"])
    assert isinstance(found, Unfit)
    assert (found.result.status, found.result.answer) == ("failed", "The cluster's server does not answer.")


async def test_what_is_restored_is_looked_for_in_the_trash_first(ctx: Context) -> None:
    assert await given_of(ctx, "restore_folder", folder="old logs") == {"folder": "old-logs"}
    assert await given_of(ctx, "restore_folder", folder="ImageNet") == {"folder": "imagenet"}
    assert "in the trash" in await refusal_of(ctx, "restore_folder", folder="zebediah")


async def test_sizes_and_grace_keep_the_unit_they_were_said_in(ctx: Context) -> None:
    assert await given_of(ctx, "create_folder", name="new-data", quota="2테라") == {"name": "new-data", "quota": "2t"}
    assert await given_of(ctx, "drain_node", node="a100-01", grace="300") == {"node": "a100-01", "grace": "5m"}


def test_the_question_for_an_argument_is_known_for_tools_that_are_not_built(ctx: Context) -> None:
    assert ask("replicas", ctx).text == "How many replicas?"
    assert ask("min_replicas", ctx).text == "What should min replicas be?"


SOME = {
    "status": "running",
    "user": "민호",
    "node": "a100 2번",
    "project": "nlp",
    "limit": "five",
    "sort_by": "gpu",
    "order": "asc",
    "idle": False,
    "resource_group": "TRAIN",
}


@given(st.sets(st.sampled_from(sorted(SOME))))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_linking_adds_no_argument_that_was_not_given(ctx: Context, keys: set[str]) -> None:
    assert set(await given_of(ctx, "list_sessions", **{k: SOME[k] for k in keys})) == keys


RAW = st.one_of(
    st.text(max_size=20),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.lists(st.text(max_size=5), max_size=3),
)


@given(st.sampled_from(list(default_registry())), st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_a_model_writes_linking_answers_and_names_exist(
    ctx: Context, tool: Any, data: st.DataObject
) -> None:
    raw = {k: data.draw(RAW) for k in tool.arguments.model_fields if data.draw(st.booleans())}
    found = await link(tool, raw, ctx)
    if isinstance(found, Ready):
        assert found.args.given().get("node") in (None, *ctx.names.nodes)
        assert found.args.given().get("user") in (None, *ctx.names.users)
