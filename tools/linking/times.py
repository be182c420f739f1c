"""Times as people say them, as ISO 8601 with the cluster's offset: "tomorrow at 6", "+2d 04:00", "내일 오전 6시".

A day that was not named is the next (or, looking back, the last) on which the clock shows that time.
"""

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Literal

from tools.linking.amounts import read_duration
from tools.linking.numbers import read_number

Toward = Literal["ahead", "back"]

_WEEKDAYS = [
    r"mon(?:day)?|월요일", r"tue(?:s(?:day)?)?|화요일", r"wed(?:nesday)?|수요일", r"thu(?:rs(?:day)?)?|목요일",
    r"fri(?:day)?|금요일", r"sat(?:urday)?|토요일", r"sun(?:day)?|일요일",
]  # fmt: skip
_WEEK = re.compile(
    r"(?P<which>(?:next|this|coming|last|past|on|지난\s*주|다다음\s*주|다음\s*주|이번\s*주|담주|차주)\s*)?"
    r"(?:" + "|".join(f"(?P<d{i}>(?<![a-z])(?:{w})(?![a-z]))" for i, w in enumerate(_WEEKDAYS)) + r")"
)
_DAYS = [
    (r"(?:the )?day after tomorrow|내일\s*모레|낼모레|모레", 2), (r"글피", 3), (r"tomorrow|tmrw|내일|낼|익일", 1),
    (r"today|this (?=morning|afternoon|evening)|tonight|오늘|금일|이따가?", 0),
    (r"(?:the )?day before yesterday|그저께|그제|엊그제", -2),
    (r"yesterday|last night|어제|어저께|전날", -1),
]  # fmt: skip
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_MONTH = r"(?P<mon>" + "|".join(_MONTHS) + r")[a-z]*\.?"
_DATES = [
    re.compile(r"(?P<y>\d{4})[-./](?P<m>\d{1,2})[-./](?P<d>\d{1,2})(?!\d)"),
    re.compile(r"(?:(?P<y>\d{4})\s*년\s*)?(?P<m>\d{1,2})\s*월\s*(?P<d>\d{1,2})\s*일"),
    re.compile(rf"(?P<d>\d{{1,2}})(?:st|nd|rd|th)?(?: of)? {_MONTH}(?:,? (?P<y>\d{{4}}))?"),
    re.compile(rf"{_MONTH} (?P<d>\d{{1,2}})(?:st|nd|rd|th)?(?!\d|:)(?:,? (?P<y>\d{{4}}))?"),
]
_PART = (
    r"(?P<part>a\.?m\.?|p\.?m\.?|in the morning|in the afternoon|in the evening|at night"
    r"|morning|afternoon|evening|tonight|night"
    r"|오전|오후|아침|새벽|저녁|밤|낮|점심)"
)
_HOUR_WORDS = r"(?:[a-z]+(?:[ -][a-z]+)?|[가-힣]{1,2}\s?[가-힣]?)"
_CLOCKS = [
    re.compile(r"(?<!\d)(?P<h>\d{1,2}):(?P<min>\d\d)(?::\d\d)?(?!\d)"),
    re.compile(r"(?<!\d)(?P<h>\d{1,2})\s*시(?!간)\s*(?:(?P<min>\d{1,2})\s*분|(?P<half>반))?"),
    re.compile(
        r"(?P<hw>열한|열두|한|두|세|네|다섯|여섯|일곱|여덟|아홉|열|영)\s*시(?!간)\s*(?:(?P<min>\d{1,2})\s*분|(?P<half>반))?"
    ),
    re.compile(r"half past (?P<hw>[a-z]+|\d{1,2})(?P<half>)"),
    re.compile(r"(?<![\d-])(?P<h>\d{1,2})\s*(?=(?:a\.?m|p\.?m|o'?clock|in the|at night))"),
    re.compile(r"(?:^|at |by |around )(?P<h>\d{1,2})(?!\d|[-./:])"),
    re.compile(
        r"(?:^|at |by |around )(?P<hw>one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)"
        r"(?![a-z]| (?:quarter|month|year|week|day|hour|min))"
    ),
]
_NAMED = [(r"noon|midday|정오", time(12)), (r"midnight|자정", time(0))]
_RELATIVE = re.compile(
    r"^(?:\+|in |지금(?:으로)?부터\s*)?(?P<span>.+?)(?P<later>\s*(?:from now|later|뒤에?|후에?|이따가?|있다가))?$"
)
_BACK = re.compile(r"(?:ago|전(?:부터)?)$")
_PLUS = re.compile(r"(?:\+|in )?(?P<span>\S.*?)(?P<later> at| from now at|\s*[뒤후]에?)? (?P<clock>\S.*)")


@dataclass(frozen=True)
class _Said:
    """What was found in the words."""

    day: date | None
    clock: time | None


def read_time(said: str, now: datetime, toward: Toward = "ahead") -> str | None:
    """ISO 8601 of a time that was said, relative to `now`; None when the words are none."""
    text = " ".join(said.casefold().strip().rstrip(".").split())
    found = _iso(text, now) or _plus(text, now) or _relative(text, now) or _day_and_clock(text, now, toward)
    found = found or _by_library(said, now)
    return found.isoformat(timespec="seconds") if found else None


def read_since(said: str, now: datetime) -> str | None:
    """For looking back: a duration ("24h") where one was said, else a time."""
    text = said.strip()
    if not re.fullmatch(r"\d\d?:\d\d", text) and (span := read_duration(text)) is not None:
        return span
    return read_time(re.sub(r"^(?:since|after|from|starting)\s+", "", text, flags=re.I), now, "back")


def _iso(text: str, now: datetime) -> datetime | None:
    if not re.match(r"\d{4}-\d\d-\d\d[t ]", text):
        return None
    try:
        found = datetime.fromisoformat(text.upper())
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=now.tzinfo)


def _plus(text: str, now: datetime) -> datetime | None:
    """ "+2d 04:00": four o'clock on the day after tomorrow; "in three days at 6", "사흘 뒤 아침 여덟 시"."""
    match = _PLUS.fullmatch(text)
    if match is None or not (text.startswith(("+", "in ")) or match["later"]):
        return None
    span, clock = read_duration(match["span"]), _clock(match["clock"])
    if span is None or clock is None or _delta(span).seconds:
        return None
    return _at(now.date() + _delta(span), clock, now)


def _relative(text: str, now: datetime) -> datetime | None:
    """ "+30m", "in two hours", "30분 뒤", "half an hour", and looking back "2 hours ago"."""
    if text == "now" or text in ("지금", "바로", "immediately"):
        return now
    if _BACK.search(text) and (span := read_duration(text)):
        return now - _delta(span)
    match = _RELATIVE.match(text)
    span = read_duration(match["span"]) if match else None
    return now + _delta(span) if span and not _CLOCKS[0].search(text) else None


def _delta(span: str) -> timedelta:
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86_400}[span[-1]]
    return timedelta(seconds=float(span[:-1]) * seconds)


def _day_and_clock(text: str, now: datetime, toward: Toward) -> datetime | None:
    said = _Said(_day(text, now, toward), _clock(text))
    if said.day is None and said.clock is None:
        return None
    if said.day is not None:
        return _at(said.day, said.clock or time(0), now)
    return _next(said.clock or time(0), now, toward)


def _next(clock: time, now: datetime, toward: Toward) -> datetime:
    today = _at(now.date(), clock, now)
    if toward == "ahead":
        return today if today > now else today + timedelta(days=1)
    return today if today <= now else today - timedelta(days=1)


def _at(day: date, clock: time, now: datetime) -> datetime:
    return datetime.combine(day, clock, tzinfo=now.tzinfo)


def _day(text: str, now: datetime, toward: Toward) -> date | None:
    for pattern, offset in _DAYS:
        if re.search(pattern, text):
            return now.date() + timedelta(days=offset)
    if match := _WEEK.search(text):
        return _weekday(match, now, toward)
    for dates in _DATES:
        if match := dates.search(text):
            return _date(match, now, toward)
    return None


def _weekday(match: re.Match[str], now: datetime, toward: Toward) -> date:
    """The coming one; with "next" / 다음 주 that of next week, looking back the last one."""
    index = next(i for i in range(7) if match[f"d{i}"])
    which = (match["which"] or "").replace(" ", "")
    monday = now.date() - timedelta(days=now.weekday())
    weeks = {"next": 1, "다음주": 1, "담주": 1, "차주": 1, "다다음주": 2, "이번주": 0, "지난주": -1}.get(which)
    if weeks is not None:
        return monday + timedelta(days=index, weeks=weeks)
    ahead = (index - now.weekday()) % 7
    if toward == "back" or which in ("last", "past"):
        return now.date() - timedelta(days=(-ahead) % 7 or (7 if which in ("last", "past") else 0))
    return now.date() + timedelta(days=ahead)


def _date(match: re.Match[str], now: datetime, toward: Toward) -> date | None:
    groups = match.groupdict()
    month = _MONTHS.index(groups["mon"]) + 1 if groups.get("mon") else int(groups["m"])
    try:
        found = date(int(groups["y"] or now.year), month, int(groups["d"]))
    except ValueError:
        return None
    if not groups["y"] and toward == "ahead" and found < now.date():
        return found.replace(year=now.year + 1)
    return found


def _clock(text: str) -> time | None:
    for words, named in _NAMED:
        if re.search(words, text):
            return named
    for pattern in _CLOCKS:
        if match := pattern.search(_without_date(text)):
            return _hour_and_minute(match, text)
    return None


def _without_date(text: str) -> str:
    for dates in _DATES:
        text = dates.sub(" ", text)
    return text.strip()


def _hour_and_minute(match: re.Match[str], text: str) -> time | None:
    groups = match.groupdict()
    hour = read_number(groups["hw"]) if groups.get("hw") else float(groups["h"])
    minute = 30 if groups.get("half") is not None else int(groups.get("min") or 0)
    if hour is None or hour > 24 or minute > 59:
        return None
    part = re.search(_PART, text)
    return time(_on_day(int(hour), part[0] if part else "") % 24, minute)


def _on_day(hour: int, part: str) -> int:
    """The hour of 24 that "6 in the evening", "밤 12시", "오전 12시" mean."""
    late = part.startswith("p") or part in (
        "in the afternoon",
        "in the evening",
        "afternoon",
        "evening",
        "오후",
        "저녁",
        "낮",
        "점심",
    )
    night = part in ("at night", "tonight", "night", "밤")
    early = part.startswith("a") or part in ("in the morning", "morning", "오전", "아침", "새벽")
    if late and hour < 12:
        return hour + 12
    if night:
        return hour + 12 if 5 <= hour <= 12 else hour
    return 0 if early and hour == 12 else hour


def _by_library(said: str, now: datetime) -> datetime | None:
    """What the grammar above does not know; dateparser is asked only about words with a digit or a letter in them."""
    if not re.search(r"[^\W_]{3}", said):
        return None
    import dateparser

    settings = {
        "RELATIVE_BASE": now.replace(tzinfo=None),
        "PREFER_DATES_FROM": "current_period",
        "STRICT_PARSING": True,
    }
    found: datetime | None = dateparser.parse(said, languages=["en", "ko"], settings=settings)
    return found.replace(tzinfo=now.tzinfo) if found and found.tzinfo is None else found
