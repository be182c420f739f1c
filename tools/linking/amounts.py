"""Sizes and durations as people say them, as canonical strings: "64 gigs" is "64g", "한 시간 반" is "90m"."""

import re

from tools.linking.numbers import number, read_number

_SIZE_UNITS = {
    "k": r"k|kb|kib|ki|kilobytes?|kibibytes?|킬로(?:바이트)?",
    "m": r"m|mb|mib|mi|megs?|megabytes?|mebibytes?|메가(?:바이트)?",
    "g": r"g|gb|gib|gi|gigs?|gigabytes?|gibibytes?|giga|기가(?:바이트)?",
    "t": r"t|tb|tib|ti|teras?|terabytes?|tebibytes?|테라(?:바이트)?",
    "p": r"p|pb|pib|pi|petas?|petabytes?|pebibytes?|페타(?:바이트)?",
}
_SIZES = [
    (unit, re.compile(rf"(.+?)[\s-]*(?:{words})(?: of (?:memory|ram|space|storage))?(?:\s*(?:짜리|정도|만))?"))
    for unit, words in _SIZE_UNITS.items()
]
_DURATION_UNITS = {
    "s": r"s|secs?|seconds?|초",
    "m": r"m|mins?|minutes?|분",
    "h": r"h|hrs?|hours?|시간",
    "d": r"d|days?|일",
    "w": r"w|wks?|weeks?|주일?",
    "month": r"months?|달|개월",
    "year": r"years?|년",
}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "month": 30 * 86_400, "year": 365 * 86_400}
_ALIKE = {
    "하루": "1d", "이틀": "2d", "사흘": "3d", "나흘": "4d", "닷새": "5d", "엿새": "6d", "이레": "7d", "여드레": "8d",
    "아흐레": "9d",
    "열흘": "10d", "보름": "15d", "일주일": "7d", "반나절": "12h", "한나절": "12h", "반시간": "30m",
    "half an hour": "30m",
    "half hour": "30m", "a half hour": "30m", "half a day": "12h", "half a minute": "30s", "overnight": "12h",
    "fortnight": "14d", "a fortnight": "14d", "하루반": "36h", "zero": "0s", "hr": "1h",
    "quarter of an hour": "15m", "half a year": "180d",
}  # fmt: skip
_FILLERS = re.compile(
    r"^(?:for|after|within|in|over|during|since|the|these|those|this|past|last|previous|at most|max|up to|only|another"
    r"|지난|최근|최대|앞으로|지금부터|이후|한번에)\s+"
)
_ENDINGS = re.compile(r"\s*(?:ago|or so|long|tops|max|전|동안|(?<!시)간|치|내|이내|정도|쯤|후|뒤|이후|전부터|만|짜리)$")
_CLOCK = re.compile(r"(?:(\d+)-)?(\d{1,3}):(\d\d)(?::(\d\d))?")
_CANONICAL = re.compile(r"\d+(?:\.\d+)?[smhd]")
_ISO = re.compile(r"p(?:(\d+)d)?(?:t(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?)?")
_PART = "|".join(f"(?P<{u}>{words})" for u, words in _DURATION_UNITS.items())
_STEP = re.compile(
    rf"(?P<count>(?:(?!(?:{'|'.join(_DURATION_UNITS.values())})(?![a-z])).)+?)[\s-]*(?:{_PART})(?![a-z])"
    r"\s*(?P<half>(?:and a half|반)(?!\S))?"
)


def read_size(said: str) -> str | None:
    """A size with a binary unit ("64g"); None when the words are no size or have no unit."""
    text = " ".join(said.casefold().replace(",", "").split())
    for unit, pattern in _SIZES:
        count = read_number(match[1]) if (match := pattern.fullmatch(text)) else None
        if count is not None and count >= 0:
            return _canonical_size(count, unit)
    return None


def _canonical_size(count: float, unit: str) -> str:
    """Whole where a smaller unit makes it so: half a terabyte is "512g", 1.5 TB stays "1.5t"."""
    smaller = {"m": "k", "g": "m", "t": "g", "p": "t"}
    if count < 1 and unit in smaller and (count * 1024).is_integer():
        return f"{number(count * 1024)}{smaller[unit]}"
    return f"{number(count)}{unit}"


def read_duration(said: str, bare: str | None = None) -> str | None:
    """A duration ("90m"); `bare` is the unit of a number alone, if there is a customary one. None when it is none."""
    text = " ".join(said.casefold().replace(",", " ").split())
    if _CANONICAL.fullmatch(text):
        return text
    if bare and text.isdigit():
        return canonical_duration(int(text) * _SECONDS[bare])
    for candidate in (text, _ENDINGS.sub("", text), _strip(text)):
        if (plain := _in_one_unit(candidate)) is not None:
            return plain
        if (seconds := _seconds(candidate)) is not None:
            return canonical_duration(seconds)
    return None


def _in_one_unit(text: str) -> str | None:
    """ "24 hours" stays "24h": what was said in one unit keeps it."""
    match = _STEP.fullmatch(text)
    count = read_number(match["count"]) if match and not match["half"] else None
    unit = next((u for u in "smhd" if match and match[u]), None)
    return f"{number(count)}{unit}" if unit and count is not None and count.is_integer() else None


def canonical_duration(seconds: float) -> str:
    """In the largest unit that keeps it whole."""
    for unit in ("d", "h", "m"):
        if seconds >= _SECONDS[unit] and seconds % _SECONDS[unit] == 0:
            return f"{number(seconds / _SECONDS[unit])}{unit}"
    return f"{number(seconds)}s"


def _strip(text: str) -> str:
    while (shorter := _ENDINGS.sub("", _FILLERS.sub("", text))) != text:
        text = shorter
    return text


def _seconds(text: str) -> float | None:
    if text in _ALIKE or text.replace(" ", "") in _ALIKE:
        known = _ALIKE.get(text) or _ALIKE[text.replace(" ", "")]
        return float(known[:-1]) * _SECONDS[known[-1]]
    if match := _CLOCK.fullmatch(text):
        return _of_parts(match)
    if (match := _ISO.fullmatch(text)) and any(match.groups()):
        return _of_parts(match)
    return _summed(text)


def _of_parts(match: re.Match[str]) -> float:
    days, hours, minutes, seconds = (int(g or 0) for g in match.groups())
    return days * 86_400 + hours * 3600 + minutes * 60 + seconds


def _summed(text: str) -> float | None:
    """ "1h30m", "two hours and ten minutes", "an hour and a half", "1시간 반", "week"."""
    total, at = 0.0, 0
    text = re.sub(r"\band (?!a? ?half)", "", text)
    text = re.sub(r"^(hour|day|minute|week|month)\b", r"a \1", text)
    while at < len(text):
        match = _STEP.match(text, at)
        count = read_number(match["count"].strip().removeprefix("and ")) if match else None
        if match is None or count is None:
            return None
        unit = next(u for u in _SECONDS if match[u])
        total += (count + (0.5 if match["half"] else 0)) * _SECONDS[unit]
        at = match.end() + len(text[match.end() :]) - len(text[match.end() :].lstrip())
    return total if at else None
