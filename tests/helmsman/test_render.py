"""Views as terminal text: widths, tones, and text that would like to steer the terminal."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from helmsman.render import Look, card, clean, language_of_locale, render, word_to_type
from tools.views import Cell, Chart, Facts, Plan, PlanLine, Table, Text

PLAIN = Look(width=80)


def sessions() -> Table:
    rows = [
        [
            Cell(text="학습-작업"),
            Cell(text="resnet-sweep-of-the-whole-week"),
            Cell(text="4"),
            Cell(text="256 GiB", tone="bad"),
        ],
        [Cell(text="bert"), Cell(text="tune"), Cell(text="12"), Cell(text="8 GiB")],
    ]
    columns = ["이름", "what", "GPU", "memory"]
    return Table(
        title="2 sessions", columns=columns, align=["left", "left", "right", "right"], rows=rows, note="1 more"
    )


def test_a_table_lines_up_although_hangul_is_two_cells_wide() -> None:
    assert render(sessions(), PLAIN) == (
        "2 sessions\n"
        "이름       what                            GPU   memory\n"
        "학습-작업  resnet-sweep-of-the-whole-week    4  256 GiB\n"
        "bert       tune                             12    8 GiB\n"
        "1 more\n"
    )


def test_a_table_that_is_too_wide_loses_text_and_never_a_number() -> None:
    assert render(sessions(), Look(width=40)) == (
        "2 sessions\n"
        "이름      what               GPU  memory\n"
        "학습-작업 resnet-sweep-of-t…   4 256 GiB\n"
        "bert      tune                12   8 GiB\n"
        "1 more\n"
    )


def test_a_table_gives_up_headings_on_one_line_before_it_cuts_texts() -> None:
    cells = [[Cell(text="a100-01"), Cell(text="A100-80G"), Cell(text="128 GiB")]]
    table = Table(
        title="1 node", columns=["Node", "GPU model", "Memory left"], align=["left", "left", "right"], rows=cells
    )
    assert (
        render(table, Look(width=26))
        == "1 node\n         GPU        Memory\nNode     model        left\na100-01  A100-80G  128 GiB\n"
    )


def test_in_a_chat_a_table_leaves_out_its_last_columns_and_says_so() -> None:
    columns = ["name", "a", "b", "c", "d", "e"]
    rows = [[Cell(text="resnet"), *(Cell(text="1,000,000") for _ in range(5))] for _ in range(3)]
    table = Table(title="3", columns=columns, align=["left", *["right"] * 5], rows=rows)  # type: ignore[list-item]
    assert render(table, Look(width=50), limit=20).splitlines()[-1] == "too narrow for: e; /show prints all of it"
    assert "  e     1,000,000" in render(table, Look(width=50))


def test_where_not_even_that_fits_each_row_becomes_a_block() -> None:
    text = render(sessions(), Look(width=28))
    assert "  memory  256 GiB\n" in text
    assert "  GPU     12\n" in text


@given(width=st.integers(20, 200))
def test_no_line_of_a_table_is_wider_than_the_terminal(width: int) -> None:
    assert max(cell_len(line) for line in render(sessions(), Look(width=width)).splitlines()) <= width


@given(width=st.integers(20, 200))
def test_every_number_is_whole_at_every_width(width: int) -> None:
    text = render(sessions(), Look(width=width))
    assert "256 GiB" in text
    assert "8 GiB" in text


def test_a_tone_is_a_colour_in_a_terminal_and_nothing_without_colours() -> None:
    assert "\x1b[31m" in render(sessions(), Look(color=True))
    assert "\x1b" not in render(sessions(), PLAIN)


class _Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environ", "color"),
    [
        (_Terminal(), {"TERM": "xterm-256color"}, True),
        (_Terminal(), {"TERM": "xterm-256color", "NO_COLOR": "1"}, False),
        (_Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {"TERM": "xterm-256color"}, False),
    ],
    ids=["terminal", "NO_COLOR", "dumb", "pipe"],
)
def test_colours_are_for_terminals_that_want_them(stream: io.StringIO, environ: dict[str, str], color: bool) -> None:
    assert Look.of(stream, "en", environ).color is color


def test_the_language_is_that_of_the_first_locale_variable_that_is_set() -> None:
    assert language_of_locale({"LANG": "ko_KR.UTF-8"}) == "ko"
    assert language_of_locale({"LC_ALL": "en_US.UTF-8", "LANG": "ko_KR.UTF-8"}) == "en"
    assert language_of_locale({}) == "en"


HOSTILE = [
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07text",
    "\x1b]52;c;aGFja2Vk\x1b\\clipboard",
    "\x9b2Jclear",
    "\x1bcreset",
    "a\x08\x08b",
    "abc\u202egnp.exe",
    "\x1b]8;;http://evil\x1b\\link",
    "\x1bPpayload\x1b\\",
    "unfinished \x1b]0;for ever",
    "\x1b",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_outside_cannot_steer_the_terminal(text: str) -> None:
    cell = Cell(text=text)
    views = [
        Text(title=text, text=text, code=True),
        Text(text=text),
        Table(title=text, columns=[text], rows=[[cell]], note=text),
        Facts(title=text, facts=[(text, cell)]),
        Chart(title=text, unit=text, bars=[(text, 1, text)]),
        Plan(
            title=text, risk="D", effects=[PlanLine(text=text, owner=text)], warnings=[text], undo=text, type_word=text
        ),
    ]
    for view in views:
        drawn = render(view, PLAIN)
        assert not [c for c in drawn if (ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 or c == "\u202e"], view


@given(st.text())
def test_no_control_character_survives_cleaning(text: str) -> None:
    assert not [c for c in clean(text) if (ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160]


def test_what_an_escape_sequence_says_is_gone_with_it() -> None:
    assert clean("\x1b[1;31mred\x1b[0m \x1b]0;owned\x07title \x1b]8;;http://x\x1b\\link") == "red title link"


def test_brackets_in_names_are_text_and_no_markup() -> None:
    table = Table(title="[bold]t", columns=["[red]c"], rows=[[Cell(text="[link=http://x]x[/link] :smile:")]])
    assert render(table, PLAIN) == "[bold]t\n[red]c\n[link=http://x]x[/link] :smile:\n"


def test_a_progress_bar_in_a_log_shows_its_last_state() -> None:
    assert clean(" 10%\r 50%\r100%\r\ndone\r\n") == "100%\ndone\n"


def test_decomposed_hangul_is_composed_so_that_its_width_is_right() -> None:
    assert clean("\u1112\u1161\u11ab") == "한"


def test_a_long_table_keeps_its_beginning_and_a_log_its_end() -> None:
    rows = [[Cell(text=f"s{n}")] for n in range(100)]
    table = render(Table(title="100", columns=["name"], rows=rows), PLAIN, limit=5)
    log = render(Text(title="log", text="\n".join(f"line {n}" for n in range(100)), code=True), PLAIN, limit=5)
    assert table.splitlines() == ["100", "name", "s0", "s1", "s2", "… 97 more lines; /show prints all of it"]
    assert log.splitlines()[0] == "log"
    assert log.splitlines()[-1] == "line 99"
    assert len(log.splitlines()) == 6


def test_long_log_lines_are_not_folded_so_that_they_can_be_copied() -> None:
    assert "x" * 300 in render(Text(text="x" * 300, code=True, tone="bad"), Look(width=40, color=True))


def test_a_chart_draws_bars_in_proportion() -> None:
    chart = Chart(
        title="GPU use", unit="%", bars=[("vision", 100, "100 %"), ("비전", 50, "50 %"), ("nlp", 0, "0 %")], maximum=100
    )
    assert render(chart, Look(width=30)) == (
        "GPU use (%)\nvision  100 %  ███████████████\n비전     50 %  ███████▌\nnlp       0 %\n"
    )


def test_a_plan_card_says_what_happens_to_whom_and_that_it_is_final() -> None:
    plan = Plan(
        title="Stop resnet-sweep",
        risk="D",
        effects=[PlanLine(text="resnet-sweep is stopped", tone="bad", owner="alice")],
        warnings=["3 h of work are lost."],
        type_word="resnet-sweep",
    )
    assert card([plan], Look(width=44), keys=True) == (
        "╭─ Plan: this interrupts or destroys ──────╮\n"
        "│ Stop resnet-sweep                        │\n"
        "│ • resnet-sweep is stopped (work of       │\n"
        "│   alice)                                 │\n"
        "│ ! 3 h of work are lost.                  │\n"
        "│ This can't be undone.                    │\n"
        "│                                          │\n"
        "│ Type resnet-sweep to do it · n no (or n  │\n"
        "│ and why) · e edit                        │\n"
        "╰──────────────────────────────────────────╯\n"
    )


def test_several_plans_share_one_box_and_want_one_word() -> None:
    plans = [
        Plan(title="Start a", risk="W"),
        Plan(title="Stop b", risk="D", type_word="b"),
        Plan(title="Stop c", risk="D"),
    ]
    drawn = card(plans, PLAIN)
    assert drawn.count("╭") == 1
    assert drawn.index("Start a") < drawn.index("Stop b") < drawn.index("Stop c")
    assert word_to_type(plans) == "b"
    assert word_to_type(plans[:1]) is None


def test_without_unicode_the_drawing_is_ascii() -> None:
    plan = Plan(title="Start x", risk="W", effects=[PlanLine(text="x starts")], undo="stop x")
    assert card([plan], Look(width=40, unicode=False)).isascii()
