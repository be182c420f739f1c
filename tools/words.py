"""Sentences in the reader's language: English is the template itself, Korean comes from the gettext catalogue.

`python -m tools.words --missing` lists the templates without a translation, `--add` writes empty entries for them.
"""

import argparse
import ast
import io
import re
import string
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from gettext import GNUTranslations, NullTranslations
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cluster.sentence import Param, Sentence

if TYPE_CHECKING:
    from babel.messages.catalog import Catalog

Language = Literal["en", "ko"]
PACKAGES = ("cluster", "tools", "helmsman")
"""Whose sentences people read."""
_HIDDEN = re.compile(r"another project's session( \([^)]*\))?")
_HANGUL = re.compile(r"[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]")
_SPAN_WORDS = {"d": "일", "h": "시간", "min": "분", "s": "초"}
_SPAN_PART = re.compile(r"(\d+) (d|h|min|s)\b")
_SPAN = re.compile(rf"{_SPAN_PART.pattern}( {_SPAN_PART.pattern})?")
_HEADER = """\
# Korean for what Helmsman says. The key is the English template; keep the names in braces.
msgid ""
msgstr ""
"Project-Id-Version: helmsman\\n"
"Language: ko\\n"
"MIME-Version: 1.0\\n"
"Content-Type: text/plain; charset=utf-8\\n"
"Content-Transfer-Encoding: 8bit\\n"
"Plural-Forms: nplurals=1; plural=0;\\n"

"""
_CATALOGUE = "locale/ko/LC_MESSAGES/helmsman.po"


def say(sentence: Sentence, language: Language = "en") -> str:
    """The sentence in that language; English where there is no translation."""
    if language == "en":
        return sentence.text.format(**{name: _plain(value) for name, value in sentence.params.items()})
    return _korean().gettext(sentence.text).format(**{n: _in_korean(n, v) for n, v in sentence.params.items()})


def speaker(language: Language) -> Callable[[Sentence], str]:
    """`say` in one language, for `Context.say`."""
    return partial(say, language=language)


def language_of(text: str) -> Language:
    """Korean as soon as there is Hangul in it: names and commands are Latin in Korean requests too."""
    return "ko" if _HANGUL.search(text) else "en"


def _plain(value: Param) -> Param:
    """4.0 as 4, so that amounts read as people write them."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def _in_korean(name: str, value: Param) -> Param:
    """A state or a length of time that the cluster put into a sentence as English words, in Korean too."""
    if not isinstance(value, str):
        return _plain(value)
    if _HIDDEN.search(value):
        return _HIDDEN.sub(lambda m: f"다른 프로젝트의 세션{m[1] or ''}", value)
    if name in ("state", "status", "before", "after", "to"):
        return _korean().gettext(value)
    return _SPAN_PART.sub(lambda m: m[1] + _SPAN_WORDS[m[2]], value) if _SPAN.fullmatch(value) else value


@cache
def _korean() -> NullTranslations:
    """The Korean catalogue, read when it is first wanted."""
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    with files("tools").joinpath(_CATALOGUE).open("rb") as file:
        catalogue = read_po(file, locale="ko")
    compiled = io.BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return GNUTranslations(compiled)


# ── keeping the catalogue complete ───────────────────────────────────────────────────────────────


def templates(root: Path) -> dict[str, str]:
    """Every template in `S("…")` or `Sentence(text="…")` of the packages, with the place where it was first seen."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            for text, line in _literals(path):
                found.setdefault(text, f"{path.relative_to(root)}:{line}")
    return found


def _literals(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        if node.func.id == "S" and node.args:
            yield from _strings(node.args[0])
        elif node.func.id == "Sentence":
            yield from (pair for k in node.keywords if k.arg == "text" for pair in _strings(k.value))


def _strings(node: ast.expr) -> Iterator[tuple[str, int]]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value, node.lineno


def parameters(template: str) -> set[str]:
    """The names in braces."""
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def translations(root: Path) -> dict[str, str]:
    """Template to Korean, as the catalogue in `root` has it."""
    from babel.messages.pofile import read_po

    with (root / "tools" / _CATALOGUE).open("rb") as file:
        return {str(m.id): str(m.string) for m in read_po(file, locale="ko") if m.id}


def missing(root: Path) -> dict[str, str]:
    """Templates without a Korean text, with their places."""
    known = translations(root)
    return {text: place for text, place in templates(root).items() if not known.get(text)}


def add(root: Path, texts: Iterable[str]) -> None:
    """Write empty entries for new templates, and drop those that no sentence uses any more."""
    from babel.messages.pofile import read_po

    path = root / "tools" / _CATALOGUE
    with path.open("rb") as file:
        catalogue = read_po(file, locale="ko")
    used = templates(root)
    for message in [m for m in catalogue if m.id and m.id not in used]:
        catalogue.delete(message.id)
    for text in texts:
        catalogue.add(text)
    write(path, catalogue)


def write(path: Path, catalogue: "Catalog") -> None:
    """The catalogue in one fixed form (sorted, no dates, no places), so that only what changed shows in a diff."""
    from babel.messages.pofile import write_po

    for message in catalogue:
        message.locations = []
        message.flags = set()
    body = io.BytesIO()
    write_po(body, catalogue, width=10_000, sort_output=True, omit_header=True, ignore_obsolete=True)
    path.write_bytes(_HEADER.encode() + body.getvalue())


def main() -> None:
    """List or add what is not translated."""
    parser = argparse.ArgumentParser(prog="python -m tools.words", description=main.__doc__)
    parser.add_argument("--missing", action="store_true", help="list templates without a translation")
    parser.add_argument("--add", action="store_true", help="write empty entries for them into the catalogue")
    options = parser.parse_args()
    root = Path(__file__).resolve().parent.parent
    lacking = missing(root)
    if options.add:
        add(root, lacking)
    for text, place in lacking.items():
        sys.stdout.write(f"{place}: {text}\n")


if __name__ == "__main__":
    main()
