"""Sentences in both languages."""

from datetime import timedelta
from pathlib import Path

import pytest

from cluster.models import S
from tools.base import Context
from tools.show import span
from tools.words import add, language_of, missing, parameters, say, speaker, templates, translations

ROOT = Path(__file__).parents[2]
TEMPLATES = templates(ROOT)


def test_every_sentence_has_a_korean_text() -> None:
    assert missing(ROOT) == {}, "run `python -m tools.words --add` and translate the new entries"


def test_a_translation_has_the_parameters_of_its_template() -> None:
    wrong = [t for t, ko in translations(ROOT).items() if ko and parameters(t) != parameters(ko)]
    assert wrong == []


def test_no_translation_leaves_the_choice_of_particle_to_the_reader() -> None:
    marks = ("(을)", "(를)", "(이)", "(가)", "(은)", "(는)", "(와)", "(과)", "(으)로")
    assert [ko for ko in translations(ROOT).values() if any(mark in ko for mark in marks)] == []


def test_no_particle_that_depends_on_the_name_follows_a_name() -> None:
    """After a name nobody knows whether it ends in a consonant: the particle goes to a noun behind it."""
    wrong = [
        ko
        for ko in translations(ROOT).values()
        for p in ("을 ", "를 ", "은 ", "는 ", "이 ", "가 ", "과 ", "와 ")
        if "}" + p in ko
    ]
    assert [w for w in wrong if not any(unit in w for unit in ("{memory}를", "{asked}를"))] == []


def test_a_sentence_is_said_in_the_language_asked_for() -> None:
    sentence = S("{node} takes new sessions again.", node="a100-03")
    assert say(sentence) == "a100-03 takes new sessions again."
    assert say(sentence, "ko") == "a100-03 노드가 다시 새 세션을 받습니다."


def test_amounts_are_said_as_people_write_them() -> None:
    assert say(S("{count} GPUs", count=4.0)) == "4 GPUs"
    assert say(S("{count} GPUs", count=0.5), "ko") == "GPU 0.5개"


def test_states_and_spans_that_the_cluster_put_in_are_korean_too() -> None:
    assert (
        say(S("{name} has ended already ({state}).", name="running", state="terminated"), "ko")
        == "running 세션은 이미 끝났습니다(종료됨)."
    )
    assert (
        say(S("{name} waits about {by} longer.", name="x", by="3 h 5 min"), "ko")
        == "x 세션이 약 3시간 5분 더 기다립니다."
    )


def test_an_untranslated_sentence_is_said_in_english() -> None:
    assert say(S("No one has translated {this} yet.", this="it"), "ko") == "No one has translated it yet."


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("what is running?", "en"),
        ("a100 비었어?", "ko"),
        ("stop bert-tune 해줘", "ko"),
        ("", "en"),
        ("ㅇㅇ", "ko"),
        ("日本語", "en"),
    ],
)
def test_the_language_of_a_line_is_seen(text: str, language: str) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize(
    ("time", "en", "ko"),
    [
        (timedelta(seconds=40), "40 s", "40초"),
        (timedelta(minutes=5), "5 min", "5분"),
        (timedelta(hours=2), "2 h", "2시간"),
        (timedelta(hours=2, minutes=5), "2 h 5 min", "2시간 5분"),
        (timedelta(days=3), "3 d", "3일"),
        (timedelta(days=3, hours=4, minutes=9), "3 d 4 h", "3일 4시간"),
        (timedelta(seconds=-3), "0 s", "0초"),
    ],
)
def test_a_span_of_time_is_short(ctx: Context, context, time: timedelta, en: str, ko: str) -> None:  # type: ignore[no-untyped-def]
    assert span(ctx, time.total_seconds()) == en
    assert span(context(language="ko"), time.total_seconds()) == ko


def test_new_templates_get_empty_entries_and_unused_ones_go(tmp_path: Path) -> None:
    folder = tmp_path / "tools" / "locale" / "ko" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    for package in ("cluster", "helmsman"):
        (tmp_path / package).mkdir()
    (tmp_path / "cluster" / "a.py").write_text(
        'x = S("Hello {name}.", name="you")\ny = Sentence(text="Bye.")\n', encoding="utf-8"
    )
    (folder / "helmsman.po").write_text('msgid ""\nmsgstr ""\n\nmsgid "Old."\nmsgstr "옛것."\n', encoding="utf-8")
    assert set(missing(tmp_path)) == {"Hello {name}.", "Bye."}
    add(tmp_path, missing(tmp_path))
    assert translations(tmp_path) == {"Hello {name}.": "", "Bye.": ""}
    before = (folder / "helmsman.po").read_bytes()
    add(tmp_path, missing(tmp_path))
    assert (folder / "helmsman.po").read_bytes() == before


def test_a_speaker_keeps_its_language() -> None:
    assert speaker("ko")(S("Which node?")) == "어느 노드를 말씀하시나요?"
