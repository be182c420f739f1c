"""The authored requests and what is made of them."""

from random import Random

import pytest

from finetune.data import Generator, join
from finetune.korean import fit
from finetune.names import Names
from finetune.numbers import redraw
from finetune.realise import Unusable, realise
from finetune.utterances import Dialogue, Mark, Segment, read, request
from helmsman.prompts import Call
from helmsman.prompts.dialect import answer, parse, text
from helmsman.prompts.spans import FREE_NAMES, is_copyable, said
from tools.catalogue import catalogue


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator.training()


def row(text: str, tool: object = "get_session", **more: object) -> Dialogue:
    return Dialogue("test", (request({"tool": tool, "text": text, **more}, "en"),))


NAMES = Names([row("[alpha-two](session) [실험](session)", "get_session")])


def spoken(dialogue: Dialogue) -> list[Call]:
    return realise(dialogue, NAMES, Random(0), augment=False).answers[-1]


def test_a_marked_request_becomes_its_call() -> None:
    dialogue = row("start [two](gpu=2) gpus with [img:1](image)", "start_session", fixed={"type": "batch"})
    assert spoken(dialogue) == [Call("start_session", {"gpu": 2, "image": " img:1", "type": "batch"})]


def test_references_point_into_earlier_turns_and_results() -> None:
    turns = (
        request({"tool": "list_folders", "text": "folders of [vision](project)"}, "en"),
        request({"tool": "delete_folder", "text": "the second", "fixed": {"folder": "@result.1"}}, "en"),
        request({"tool": "list_folders", "text": "rest?", "fixed": {"project": "@0.project"}}, "en"),
    )
    realised = realise(Dialogue("test", turns), NAMES, Random(0), augment=False)
    assert realised.answers[1] == [Call("delete_folder", {"folder": realised.turns[0].results[0].names[1]})]
    assert realised.answers[2] == [Call("list_folders", {"project": "vision"})]


def test_a_value_that_the_catalogue_does_not_know_is_unusable() -> None:
    with pytest.raises(Unusable, match="hovering"):
        spoken(row("[hovering](status) ones", "list_sessions"))


def test_the_same_seed_gives_the_same_examples(generator: Generator) -> None:
    def first(seed: int) -> list[object]:
        stream = generator.stream(seed)
        return [next(stream) for _ in range(50)]

    assert first(7) == first(7)
    assert first(7) != first(8)


def test_every_example_parses_back_into_its_calls(generator: Generator) -> None:
    rng = Random(3)
    for _ in range(400):
        calls = generator.draw(rng).answer
        assert parse(text(answer(calls))) == [_stripped(c) for c in calls]


def _stripped(call: Call) -> Call:
    def strip(value: object) -> object:
        if isinstance(value, str):
            return value.strip()
        if isinstance(value, list):
            return [v.strip() for v in value]
        return {k.strip(): v for k, v in value.items()} if isinstance(value, dict) else value

    return Call(call.tool, {k: strip(v) for k, v in call.arguments.items()})  # type: ignore[misc]


def test_every_name_is_copied_from_the_conversation(generator: Generator) -> None:
    rng = Random(4)
    for _ in range(400):
        example = generator.draw(rng)
        source = said(example.turns)
        for call in example.answer:
            for name, value in _names(call):
                assert is_copyable(value, source), (name, value, source)


def _names(call: Call) -> list[tuple[str, str]]:
    tool = catalogue().get(call.tool)
    found = []
    for key, value in call.arguments.items() if tool else ():
        argument = tool.argument(key) if tool else None
        if argument is None or argument.kind not in ("name", "list", "text") or key in FREE_NAMES | {"action"}:
            continue
        found += [(key, v) for v in (value if isinstance(value, list) else [value]) if v != "me"]
    return found  # type: ignore[return-value]


def test_most_names_are_fresh_in_every_example(generator: Generator) -> None:
    rng = Random(5)
    names = [n for _ in range(600) for c in generator.draw(rng).answer for k, n in _names(c) if k == "session"]
    assert len(set(names)) > 0.8 * len(names)


def test_held_out_requests_are_never_drawn(generator: Generator) -> None:
    held = {_text(d) for d in read() if d.held_out}
    assert len(held) > 200
    assert not held & {_text(d) for d in generator.dialogues}


def _text(dialogue: Dialogue) -> str:
    return "\n".join(r.text for r in dialogue.requests)


def test_nearly_all_authored_requests_are_usable(generator: Generator) -> None:
    assert len(generator.dialogues) > 0.99 * sum(not d.held_out for d in read())


def test_two_requests_are_joined_with_their_own_arguments() -> None:
    first = request({"tool": "get_node", "text": "show [n1](node)."}, "en")
    second = request({"tool": "list_folders", "text": "folders by [size](sort_by)", "fixed": {"order": "desc"}}, "en")
    joined = Dialogue("test", (join(first, second, ", then "),))
    assert joined.requests[0].text == "show n1, then folders by size"
    assert spoken(joined) == [
        Call("get_node", {"node": " n1"}),
        Call("list_folders", {"sort_by": "size", "order": "desc"}),
    ]


@pytest.mark.parametrize(
    ("surface", "value"), [("4", None), ("두 장", "2"), ("eight", "8"), ("64 gigs", "64g"), ("이백 줄", "200")]
)
def test_a_redrawn_number_is_said_and_meant_alike(surface: str, value: str | None) -> None:
    argument = {"64g": "memory", "200": "tail"}.get(value or "", "gpu")
    drawn = [redraw(Segment(surface, Mark(0, argument, value)), Random(seed)) for seed in range(40)]
    assert len({d for d in drawn if d}) > 5
    for fresh in filter(None, drawn):
        back = redraw(Segment(fresh[0], Mark(0, argument, fresh[1])), Random(1))
        assert back is not None, f"{fresh[0]!r} does not say {fresh[1]!r}"


def test_a_number_that_the_words_do_not_say_is_left_alone() -> None:
    assert redraw(Segment("half a dozen", Mark(0, "gpu", "6")), Random(0)) is None
    assert redraw(Segment("12:00:00", Mark(0, "time_limit", "12h")), Random(0)) is None


@pytest.mark.parametrize(
    ("word", "after", "fitted"),
    [
        ("민호", "을 내려줘", "를 내려줘"),
        ("김현", "가 돌린", "이 돌린"),
        ("서울", "으로 옮겨", "로 옮겨"),
        ("gpu-01", "를 막아", "을 막아"),
        ("민호", "가방", "가방"),
        ("xq", "을 봐", "을 봐"),
    ],
)
def test_particles_fit_the_word_before_them(word: str, after: str, fitted: str) -> None:
    assert fit(word, after) == fitted
