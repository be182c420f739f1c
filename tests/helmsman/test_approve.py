"""Approval: on a channel the model cannot drive, bound to the exact calls, never in advance for what destroys."""

import pytest

from helmsman import approve
from helmsman.errors import BadConfig, Stale
from helmsman.models.scripted import Line, Wish
from helmsman.turn import Call, Given, Question
from tools.registry import default_registry


def calls(*wishes: tuple[str, dict[str, str]]) -> Line:
    return Line(calls=[Wish(tool=tool, arguments=arguments) for tool, arguments in wishes])


def call(tool: str = "cordon_node", risk: str = "W", **arguments: str) -> Call:
    return Call(id="c1", tool=tool, said=arguments, arguments=arguments, risk=risk, digest="d")


CORDON = calls(("cordon_node", {"node": "a100-01"}))
DRAIN = calls(("drain_node", {"node": "a100-01"}))


@pytest.mark.parametrize(
    ("rule", "given", "allowed"),
    [
        ("cordon_node", call(node="a100-01"), True),
        ("cordon_node a100-*", call(node="a100-01"), True),
        ("cordon_node a100-*", call(node="h100-01"), False),
        ("cordon_node a100-*", call(), False),
        ("cordon_node", call("uncordon_node", node="a100-01"), False),
        ("create_folder exp-* project=vision", call("create_folder", name="exp-1", project="vision"), True),
        ("create_folder exp-* project=vision", call("create_folder", name="exp-1"), False),
        ("create_folder exp-* project=vision", call("create_folder", name="other", project="vision"), False),
        ("cordon_node", call(risk="D", node="a100-01"), False),
    ],
)
def test_a_rule_covers_what_it_names_and_nothing_else(rule: str, given: Call, allowed: bool) -> None:
    assert approve.allows(approve.parse_rule(rule, default_registry()), given) is allowed


@pytest.mark.parametrize("rule", ["drain_node", "delete_folder old-*", "terminate_sessions"])
def test_what_destroys_cannot_be_approved_in_advance(rule: str) -> None:
    with pytest.raises(BadConfig, match="asks every time"):
        approve.parse_rule(rule, default_registry())


@pytest.mark.parametrize("rule", ["", "cordon", "cordon_node colour=red"])
def test_a_rule_that_could_never_fit_is_a_mistake(rule: str) -> None:
    with pytest.raises(BadConfig):
        approve.parse_rule(rule, default_registry())


def test_the_digest_depends_on_every_part_of_the_calls() -> None:
    one = call(node="a")
    others = [
        call(node="b"),
        call("drain_node", node="a"),
        one.model_copy(update={"digest": "e"}),
        one.model_copy(update={"id": "c2"}),
    ]
    assert len({approve.digest([c]) for c in [one, *others]}) == 5
    assert approve.digest([one, others[0]]) != approve.digest([others[0], one])


def test_an_answer_to_other_calls_is_stale() -> None:
    asked = [call(node="a")]
    question = Question(id="q", digest=approve.digest(asked))
    given = Given(question="q", digest=question.digest, decision="yes", face="test")
    approve.check(given, question, asked)
    with pytest.raises(Stale):
        approve.check(given, question, [call(node="b")])
    with pytest.raises(Stale):
        approve.check(given.model_copy(update={"digest": "other"}), question, asked)
    with pytest.raises(Stale):
        approve.check(given, Question(id="q2", digest=question.digest), asked)


async def test_a_tampered_digest_is_refused_and_the_question_stays_open(talk) -> None:
    t = await talk(CORDON)
    await t.say("close it")
    plan = await t.last("plan_shown")
    with pytest.raises(Stale):
        await t.session.decide(plan.question, plan.digest[:-1] + "x", "yes", "test")
    with pytest.raises(Stale):
        await t.session.decide(plan.question + "0", plan.digest, "yes", "test")
    assert t.toy.done == []
    await t.decide("yes")
    assert t.toy.done == ["cordon_node a100-01"]


async def test_a_plan_is_answered_only_once(talk) -> None:
    t = await talk(CORDON)
    await t.say("close it")
    await t.decide("no")
    with pytest.raises(Stale):
        await t.decide("yes")
    assert t.toy.done == []


async def test_a_checkpoint_that_was_changed_after_the_question_is_not_acted_on(talk) -> None:
    t = await talk(CORDON)
    await t.say("close it")
    config = {"configurable": {"thread_id": t.session.thread}}
    state = (await t.desk.agent.aget_state(config)).values["turn"]
    state["exchange"]["steps"][0]["calls"][0]["arguments"]["node"] = "cpu-01"
    await t.desk.agent.aupdate_state(config, {"turn": state}, as_node="plan")
    await t.decide("yes")
    assert t.toy.done == []
    assert (await t.last("turn_ended")).outcome == "failed"


async def test_a_model_that_says_yes_itself_approves_nothing(talk) -> None:
    eager = Line(say="yes", calls=[Wish(tool="cordon_node", arguments={"node": "a100-01"}), Wish(tool="yes")])
    t = await talk(eager)
    await t.say("close it")
    assert t.toy.done == []
    assert await t.bodies("decided") == []


async def test_a_rule_answers_its_plans_and_says_so(talk) -> None:
    t = await talk(CORDON, CORDON)
    approval = await t.desk.allow("cordon_node", "a100-*")
    await t.say("close it")
    assert t.toy.done == ["cordon_node a100-01"]
    assert "rule: yes" in await t.story()
    await t.desk.revoke(approval.id)
    await t.say("close it")
    assert len(t.toy.done) == 1
    assert await t.desk.approvals() == []


async def test_rules_of_the_configuration_hold_too(talk) -> None:
    t = await talk(CORDON, approvals=["cordon_node a100-01"])
    await t.say("close it")
    assert t.toy.done == ["cordon_node a100-01"]


async def test_no_rule_covers_a_plan_that_also_destroys(talk) -> None:
    both = Line(calls=[*CORDON.calls, *DRAIN.calls])
    t = await talk(both, approvals=["cordon_node"])
    await t.say("close and empty it")
    assert t.toy.done == []
    assert [c.tool for c in (await t.last("plan_shown")).calls] == ["cordon_node", "drain_node"]


async def test_a_rule_that_was_smuggled_into_the_store_for_a_destroying_tool_has_no_effect(talk) -> None:
    t = await talk(DRAIN)
    await t.desk.store.allow(t.desk.owner, approve.Rule(tool="drain_node"))
    await t.say("empty it")
    assert t.toy.done == []


async def test_a_world_that_never_rests_is_put_to_the_person_in_the_end(talk) -> None:
    t = await talk(CORDON, approvals=["cordon_node"])
    moves = iter(range(100))

    class Restless(str):
        def __eq__(self, other: object) -> bool:
            return False

        def __ne__(self, other: object) -> bool:
            return True

        __hash__ = str.__hash__

    t.toy.state = Restless(next(moves))
    await t.say("close it")
    assert t.toy.done == []
    assert await t.desk.store.question(t.session.thread) is not None


async def test_a_word_has_to_be_typed_where_the_card_wants_one(talk) -> None:
    t = await talk(DRAIN)
    tool = t.desk.registry.get("drain_node")
    plain = tool.preview

    async def heavy(ctx, args):
        card = await plain(ctx, args)
        card.plan.type_word = "a100-01"
        return card

    tool.preview = heavy
    await t.say("empty it", "yes")
    assert t.toy.done == []
    assert "type a100-01" in (await t.last("answered")).text
    await t.say("A100-01")
    assert t.toy.done == ["drain_node a100-01"]
