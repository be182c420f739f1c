"""Numbers, sizes, durations and times as people say them."""

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.linking.amounts import read_duration, read_size
from tools.linking.numbers import read_number
from tools.linking.times import read_since, read_time

NOW = datetime.fromisoformat("2026-03-02T09:00:00+09:00")  # a Monday
UTTERANCES = Path(__file__).parents[2] / "datasets" / "utterances"


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("4", 4), ("4 gpus", 4), ("0.5", 0.5), ("1/4", 0.25), ("20%", 0.2), ("half a dozen", 6), ("sixty-four", 64),
        ("a gpu", 1),
        ("half a gpu", 0.5), ("one and a half", 1.5), ("no gpus", 0), ("two", 2), ("1,024", 1024), ("두 장", 2),
        ("하나", 1),
        ("여덟 개", 8), ("스무 대", 20), ("마흔여덟 장", 48), ("반 장", 0.5), ("일 점 오", 1.5), ("백이십팔", 128),
        ("이천", 2000),
        ("백스물여덟", 128), ("영점이오", 0.25), ("삼분의 일", 0.33), ("3만", 30000),
    ],
)  # fmt: skip
def test_a_number_is_read(said: str, number: float) -> None:
    assert read_number(said) == number


@pytest.mark.parametrize("said", ["", "gpus", "many", "resnet", "노드", "a lot", "--", "1.2.3"])
def test_what_is_no_number_is_none(said: str) -> None:
    assert read_number(said) is None


@pytest.mark.parametrize(
    ("said", "size"),
    [
        ("64g", "64g"), ("64 gigs", "64g"), ("64GB", "64g"), ("64GiB of memory", "64g"), ("2테라", "2t"),
        ("512m", "512m"), ("1.5 TB", "1.5t"),
        ("백이십팔기가", "128g"), ("sixty gigs", "60g"), ("half a terabyte", "512g"), ("2048 gigabytes", "2048g"),
        ("4 기가바이트", "4g"),
    ],
)  # fmt: skip
def test_a_size_is_read(said: str, size: str) -> None:
    assert read_size(said) == size


@pytest.mark.parametrize("said", ["64", "", "gigs", "a lot of memory", "64 apples", "-4g"])
def test_what_is_no_size_is_none(said: str) -> None:
    assert read_size(said) is None


@pytest.mark.parametrize(
    ("said", "duration"),
    [
        ("90m", "90m"), ("an hour and a half", "90m"), ("hour and a half", "90m"), ("half an hour", "30m"),
        ("90분", "90m"), ("1시간 반", "90m"),
        ("한 시간 반", "90m"), ("two hours and ten minutes", "130m"), ("1h30m", "90m"), ("02:30:00", "150m"),
        ("1-12:00:00", "36h"),
        ("24시간", "24h"), ("3일", "3d"), ("이틀", "2d"), ("일주일", "7d"), ("60초", "60s"), ("PT90M", "90m"),
        ("the last 24 hours", "24h"),
        ("지난 12시간", "12h"), ("2 weeks", "14d"), ("half a day", "12h"), ("1.5h", "1.5h"), ("한 시간 동안", "1h"),
    ],
)  # fmt: skip
def test_a_duration_is_read(said: str, duration: str) -> None:
    assert read_duration(said) == duration


def test_a_bare_number_is_a_duration_only_where_a_unit_is_customary() -> None:
    assert read_duration("90") is None
    assert read_duration("90", bare="m") == "90m"
    assert read_duration("300", bare="s") == "5m"


@pytest.mark.parametrize("said", ["", "soon", "a while", "12 apples", "hours", "1:2:3:4"])
def test_what_is_no_duration_is_none(said: str) -> None:
    assert read_duration(said) is None


@pytest.mark.parametrize(
    ("said", "time"),
    [
        ("tomorrow 09:00", "2026-03-03T09:00"), ("tomorrow at 6", "2026-03-03T06:00"),
        ("today 18:00", "2026-03-02T18:00"),
        ("+30m", "2026-03-02T09:30"), ("in two hours", "2026-03-02T11:00"), ("+2d 04:00", "2026-03-04T04:00"),
        ("18:00", "2026-03-02T18:00"),
        ("08:00", "2026-03-03T08:00"), ("friday 17:00", "2026-03-06T17:00"), ("next monday 07:00", "2026-03-09T07:00"),
        ("monday 10:00", "2026-03-02T10:00"), ("tonight at 10", "2026-03-02T22:00"),
        ("tomorrow noon", "2026-03-03T12:00"),
        ("6pm", "2026-03-02T18:00"), ("half past eleven", "2026-03-02T11:30"),
        ("14 March 2026 22:00", "2026-03-14T22:00"),
        ("March 14 at 10pm", "2026-03-14T22:00"), ("2026-03-09T20:00", "2026-03-09T20:00"),
        ("2026-03-09", "2026-03-09T00:00"),
        ("내일 오전 6시", "2026-03-03T06:00"), ("오늘 밤 11시", "2026-03-02T23:00"),
        ("모레 새벽 네 시", "2026-03-04T04:00"),
        ("다음 주 월요일 오전 7시", "2026-03-09T07:00"), ("금요일 밤 열 시 반", "2026-03-06T22:30"),
        ("30분 뒤", "2026-03-02T09:30"),
        ("사흘 뒤 아침 여덟 시", "2026-03-05T08:00"), ("3월 5일 오후 2시", "2026-03-05T14:00"),
        ("자정", "2026-03-03T00:00"),
        ("오후 12시", "2026-03-02T12:00"), ("2월 1일 0시", "2027-02-01T00:00"),
    ],
)  # fmt: skip
def test_a_time_is_read_relative_to_now(said: str, time: str) -> None:
    assert read_time(said, NOW) == f"{time}:00+09:00"


def test_a_time_with_an_offset_keeps_it() -> None:
    assert read_time("2026-03-09T20:00:00Z", NOW) == "2026-03-09T20:00:00+00:00"


@pytest.mark.parametrize("said", ["", "later", "when it is free", "25:00", "2026-13-45", "resnet"])
def test_what_is_no_time_is_none(said: str) -> None:
    assert read_time(said, NOW) is None


@pytest.mark.parametrize(
    ("said", "since"),
    [
        ("24h", "24h"), ("the last two hours", "2h"), ("yesterday", "2026-03-01T00:00:00+09:00"),
        ("since friday 17:00", "2026-02-27T17:00:00+09:00"),
        ("어제 18:00", "2026-03-01T18:00:00+09:00"), ("10:00", "2026-03-01T10:00:00+09:00"),
        ("monday 08:00", "2026-03-02T08:00:00+09:00"),
        ("최근 사흘", "3d"),
    ],
)  # fmt: skip
def test_looking_back_gives_a_duration_or_the_last_such_time(said: str, since: str) -> None:
    assert read_since(said, NOW) == since


def _surfaces(*arguments: str) -> Iterator[tuple[str, str, str]]:
    """(argument, words, value) as the hands that wrote the utterances marked them."""
    for path in sorted(UTTERANCES.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            for surface, mark in re.findall(r"\[([^\]]+)\]\(([^)]+)\)", line):
                name, _, value = re.sub(r"^\d+\.", "", mark).partition("=")
                if name in arguments:
                    yield name, surface, value or surface


def _share(reader: Callable[[str, str], object], *arguments: str) -> float:
    read = [reader(name, surface) == reader(name, value) is not None for name, surface, value in _surfaces(*arguments)]
    assert len(read) > 100
    return sum(read) / len(read)


def test_what_other_hands_wrote_is_read_as_they_meant_it() -> None:
    def amount(name: str, said: str) -> object:
        return read_size(said) if name in ("memory", "quota", "storage") else read_duration(said, "m")

    assert _share(amount, "memory", "quota", "storage", "time_limit", "period") > 0.93
    assert _share(lambda _, said: read_number(said), "gpu", "cpu", "node_count", "tail", "limit") > 0.95
    assert (
        _share(lambda n, said: read_time(said, NOW) if n == "start_at" else read_since(said, NOW), "start_at", "since")
        > 0.9
    )


_DIGITS = "영일이삼사오육칠팔구"


def _korean(number: int) -> str:
    """A number below 10,000 in Sino-Korean words, the usual way."""
    words = ""
    for weight, name in ((1000, "천"), (100, "백"), (10, "십"), (1, "")):
        digit = number // weight % 10
        words += ("" if digit == 1 and name else _DIGITS[digit]) + name if digit else ""
    return words


@given(st.integers(1, 9999))
def test_korean_number_words_are_read_back(number: int) -> None:
    assert read_number(_korean(number)) == number


@given(st.text(max_size=30))
def test_no_text_makes_the_readers_stumble(text: str) -> None:
    for read in (read_number, read_size, read_duration, lambda t: read_time(t, NOW), lambda t: read_since(t, NOW)):
        read(text)


@given(st.integers(1, 10_000), st.sampled_from(["m", "g", "t"]))
def test_a_canonical_size_stays_as_it_is(count: int, unit: str) -> None:
    assert read_size(f"{count}{unit}") == f"{count}{unit}"


@given(st.integers(1, 10_000), st.sampled_from(["s", "m", "h", "d"]))
def test_a_canonical_duration_stays_as_it_is(count: int, unit: str) -> None:
    assert read_duration(f"{count}{unit}") == f"{count}{unit}"
