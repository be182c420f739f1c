"""Names as people say them, found among those that exist."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tools.linking.hangul import skeleton, sound
from tools.linking.names import Match, find, fold, near

NODES = [
    *(f"a100-{i:02}" for i in range(1, 5)),
    "gpu-01",
    "gpu-02",
    "gpu-07",
    "h100-11",
    "h100-12",
    "cpu-01",
    "node-07",
    "dgx-h100-06",
]
SESSIONS = [
    "resnet-sweep",
    "vit-large",
    "bert-tune",
    "llama-ft-01",
    "llama-ft-02",
    "exp-43",
    "whisper-ft",
    "notebook-jh",
    "반도체 결함",
]
USERS = ["minho", "jiwoo", "alice", "bob", "kim.minji", "seoyeon", "jonas", "hyunjun"]


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("a100 3번", "a100-03"), ("the second a100 box", "a100-02"), ("gpu node 2", "gpu-02"), ("gpu-02를", "gpu-02"),
        ("GPU 2", "gpu-02"),
        ("node 7", "node-07"), ("노드 7", "node-07"), ("a100-3", "a100-03"), ("A100_03", "a100-03"),
        ("DGX number six", "dgx-h100-06"),
        ("지피유 공칠", "gpu-07"), ("gpu2", "gpu-02"), ("a100 이 번", "a100-02"), ("세 번째 a100 노드", "a100-03"),
        ("cpu", "cpu-01"),
    ],
)  # fmt: skip
def test_a_node_is_found(said: str, name: str) -> None:
    assert find(said, NODES).names == (name,)


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("resnet", "resnet-sweep"), ("the bert job", "bert-tune"), ("exp forty three", "exp-43"),
        ("llama-ft-2", "llama-ft-02"), ("sweep", "resnet-sweep"),
        ("레즈넷", "resnet-sweep"), ("레즈넷 스윕", "resnet-sweep"), ("위스퍼", "whisper-ft"),
        ("노트북", "notebook-jh"), ("VIT Large", "vit-large"),
        ("반도체결함 작업", "반도체 결함"),
    ],
)  # fmt: skip
def test_a_session_is_found(said: str, name: str) -> None:
    assert find(said, SESSIONS).names == (name,)


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("민호", "minho"), ("지우", "jiwoo"), ("민호씨", "minho"), ("김민호", "minho"), ("김민지", "kim.minji"),
        ("앨리스", "alice"), ("서연님의", "seoyeon"),
        ("Jonas Müller", "jonas"), ("alice@example.com", "alice"), ("alice's", "alice"), ("현준이", "hyunjun"),
        ("Bob", "bob"),
    ],
)  # fmt: skip
def test_a_person_is_found(said: str, name: str) -> None:
    assert find(said, USERS).names == (name,)


def test_a_name_in_hangul_is_found_by_its_latin_spelling() -> None:
    assert find("minho", ["민호", "지우"]).names == ("민호",)


def test_what_fits_several_gives_all_of_them() -> None:
    assert find("llama", SESSIONS).names == ("llama-ft-01", "llama-ft-02")
    assert find("라마", SESSIONS).names == ("llama-ft-01", "llama-ft-02")


def test_a_slip_of_the_finger_is_a_guess() -> None:
    found = find("resent-sweep", SESSIONS)
    assert (found.names, found.sure) == (("resnet-sweep",), False)


def test_a_wrong_number_is_never_corrected() -> None:
    found = find("a100-07", NODES)
    assert found.names == ()
    assert set(found.near) >= {"a100-01", "a100-02"}
    assert find("gpu-03", ["gpu-01", "vit-large"]).names == ()


def test_a_number_is_not_taken_for_an_ordinal() -> None:
    assert find("a100-3", ["a100-05", "a100-06", "a100-07"]).names == ()
    assert find("the third a100", ["a100-05", "a100-06", "a100-07"]).names == ("a100-07",)


def test_nothing_alike_is_nothing() -> None:
    assert find("carol", USERS).names == ()
    assert find("", USERS).names == ()


@pytest.mark.parametrize(
    ("hangul", "latin"),
    [("민호", "minho"), ("준호", "joonho"), ("경민", "kyungmin"), ("하은", "haeun"), ("라마", "llama")],
)
def test_two_spellings_sound_alike(hangul: str, latin: str) -> None:
    assert sound(hangul) == sound(latin)


def test_loan_words_share_their_consonants() -> None:
    assert skeleton("레즈넷") == skeleton("resnet")


NAMES = st.from_regex(r"[a-z가-힣][a-z0-9가-힣]{0,8}([-_.][a-z0-9]{1,5}){0,2}", fullmatch=True)


@given(st.lists(NAMES, min_size=1, max_size=12, unique=True), st.data())
def test_an_exact_name_is_always_itself(known: list[str], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(known))
    found = find(name, known)
    assert (found.names, found.sure) == ((name,), True)


@given(st.lists(NAMES, min_size=1, max_size=12, unique_by=fold), st.data())
def test_case_and_separators_do_not_matter(known: list[str], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(known))
    said = name.upper().replace("-", " ").replace("_", "-")
    assume(said not in known)
    assert find(said, known).names == (name,)


@given(st.one_of(NAMES, st.text(max_size=20)), st.lists(NAMES, max_size=12, unique=True))
def test_whatever_is_found_exists(said: str, known: list[str]) -> None:
    found = find(said, known)
    assert set(found.names) <= set(known)
    assert set(found.near) <= set(known)
    assert set(near(said, known)) <= set(known)


@pytest.mark.parametrize(
    ("said", "known", "meant"),
    [
        ("비전", ["vision", "speech", "bio"], "vision"),
        ("비전 팀", ["vision", "speech", "bio"], "vision"),
        ("다혜 노트북", ["notebook-dahye", "notebook-kim", "train-dahye"], "notebook-dahye"),
    ],
)
def test_every_word_may_be_in_the_other_script_but_that_is_a_guess(said: str, known: list[str], meant: str) -> None:
    assert find(said, known) == Match((meant,), sure=False)
