"""The terminal as it really is: a process on a pseudo-terminal, keys as bytes."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

ROOT = Path(__file__).parents[2]
PLAY = [sys.executable, "-m", "helmsman.terminal.play"]
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7]|38;[\d;]+)m")


def environment(tmp: Path, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "EDITOR", "VISUAL", "LC_ALL")}
    return {
        **kept,
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "PROMPT_TOOLKIT_NO_CPR": "1",
        "PLAY_OPENING": "0",
        "PLAY_PACE": "0.1",
        "PLAY_HISTORY": str(tmp / "state" / "lines"),
        **more,
    }


class Terminal:
    """The play on a pseudo-terminal of 100 x 40, without colours unless asked for."""

    def __init__(self, tmp: Path, **more: str) -> None:
        env = environment(tmp, **{"NO_COLOR": "1", **more})
        self.child = pexpect.spawn(
            PLAY[0], PLAY[1:], env=env, cwd=str(ROOT), encoding="utf-8", dimensions=(40, 100), timeout=20, echo=False
        )
        self.child.delaybeforesend = None
        self.seen = ""

    def keys(self, *pieces: str | bytes) -> "Terminal":
        """Each piece is one write, as the terminal would send it."""
        for piece in pieces:
            os.write(self.child.fileno(), piece.encode() if isinstance(piece, str) else piece)
        return self

    def sees(self, text: str) -> "Terminal":
        """Wait for `text`; lines end with CR LF there."""
        try:
            self.child.expect_exact(text.replace("\n", "\r\n"))
        except pexpect.ExceptionPexpect:
            raise AssertionError(f"{text!r} never came; there was:\n{self.seen}{self.child.before}") from None
        self.seen += str(self.child.before) + str(self.child.after)
        return self

    def ends(self) -> int | None:
        self.child.expect(pexpect.EOF)
        self.seen += str(self.child.before)
        self.child.close()
        return self.child.exitstatus


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path)
    yield terminal
    terminal.child.close(force=True)


def test_hangul_arrives_whole_however_its_bytes_are_cut(terminal: Terminal) -> None:
    terminal.sees("Ctrl+D leaves")
    line = "세션 목록을 보여줘".encode()
    terminal.keys(*(line[i : i + 1] for i in range(len(line))), "\r").sees("You said: 세션 목록을 보여줘")
    terminal.keys(line[:-2], line[-2:] + b"\r").sees("› 세션 목록을 보여줘").sees("You said: 세션 목록을 보여줘")
    terminal.keys("작업 중지\r다음 줄\r").sees("You said: 작업 중지").sees("You said: 다음 줄")


def test_alt_enter_makes_a_new_line_and_a_paste_is_one_message(terminal: Terminal) -> None:
    terminal.sees("Ctrl+D leaves")
    terminal.keys("one", "\x1b\r", "two", "\r").sees("› one\n  two\n").sees("You said: one\ntwo\n")
    terminal.keys("\x1b[200~first\r\nsecond\rthird\x1b[201~", "\r").sees("You said: first\nsecond\nthird\n")


def test_ctrl_c_stops_a_turn_and_ctrl_d_leaves(terminal: Terminal) -> None:
    terminal.sees("Ctrl+D leaves")
    terminal.keys("slow\r").sees("draining a100-02")
    terminal.keys("\x03").sees("Stopped. This had already happened:\n  • a100-02 takes no new sessions.\n")
    terminal.keys("half a line", "\x03", "\x03").sees("Ctrl+D or /quit leaves")
    terminal.keys("\x04")
    assert terminal.ends() == 0
    assert "You said: half a line" not in terminal.seen


def test_a_plan_is_answered_from_the_keyboard_and_edited_in_the_editor(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, EDITOR="sed -i s/cpu.=.2/cpu=8/")
    terminal.sees("Ctrl+D leaves")
    terminal.keys("start\r").sees("e edit").keys("e\r").sees("Ctrl+X Ctrl+E in your editor")
    terminal.keys("\x18\x05").sees("Start bert-tune: 8 cores").sees("e edit")
    terminal.keys("y\r").sees("→ yes\n").sees("bert-tune started")
    terminal.keys("\x04")
    assert terminal.ends() == 0


def test_names_are_completed_with_tab_and_commands_by_their_beginning(terminal: Terminal) -> None:
    terminal.sees("Ctrl+D leaves")
    terminal.keys("tell me of vit\t").sees("-large").keys("\r").sees("You said: tell me of vit-large")
    terminal.keys("/q\r")
    assert terminal.ends() == 0


def test_typed_lines_are_remembered_in_the_next_chat_but_answers_are_not(tmp_path: Path) -> None:
    first = Terminal(tmp_path)
    first.sees("Ctrl+D leaves").keys("start\r").sees("e edit").keys("n\r").sees("Nothing was done.").keys("\x04")
    assert first.ends() == 0
    assert (tmp_path / "state" / "lines").stat().st_mode & 0o077 == 0
    second = Terminal(tmp_path)
    second.sees("Ctrl+D leaves").keys("\x1b[A", "\r").sees("› start\n").sees("e edit").keys("\x03").sees("→ no").keys(
        "\x04"
    )
    assert second.ends() == 0


def test_the_prompt_takes_lines_while_the_cluster_is_being_opened(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, PLAY_OPENING="0.5")
    terminal.sees("opening").keys("hello\r").sees("riverside").sees("You said: hello").keys("\x04")
    assert terminal.ends() == 0


def test_colours_are_there_and_no_color_takes_them_away(tmp_path: Path) -> None:
    for more, colours in (({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False)):
        terminal = Terminal(tmp_path, **more)
        terminal.sees("Ctrl+D leaves").keys("stop\r").sees("edit").keys("/h\t\x03", "\x03").sees(
            "Nothing was done"
        ).keys("\x04")
        assert terminal.ends() == 0
        assert bool(COLOUR.search(terminal.seen)) is colours


def test_a_dumb_terminal_gets_plain_lines(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, TERM="dumb")
    terminal.sees("Ctrl+D leaves").keys("start\n").sees("edit").keys("y\n").sees("bert-tune started").keys("slow\n")
    terminal.sees("takes no new sessions.").keys("\x03").sees("Stopped.").keys("/quit\n")
    assert terminal.ends() == 0
    assert "\x1b" not in terminal.seen


def test_a_pipe_is_read_line_by_line_and_answered_in_plain_text(tmp_path: Path) -> None:
    lines = "sessions\nstart\ny\nwhich\n1\n/nonsense\n"
    done = subprocess.run(
        PLAY, input=lines, capture_output=True, text=True, env=environment(tmp_path), cwd=ROOT, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    tail = done.stdout[done.stdout.index("→ yes") :]
    assert tail == (
        "→ yes\n"
        "bert-tune started on a100-01.\n"
        "\n› which\nWhich node: a100-01 or a100-02?\n  1  a100-01\n  2  a100-02\n"
        "\n› a100-01\nThen a100-01.\n"
        "\n› /nonsense\n"
        "There is no command /nonsense. There are: /help, /show, /follow, /history, /approvals, /model, /new,\n"
        "/resume, /quit.\n"
    )


def test_what_goes_wrong_inside_is_in_the_log_and_not_on_the_screen(terminal: Terminal, tmp_path: Path) -> None:
    terminal.sees("Ctrl+D leaves").keys("fail\r").sees("Helmsman itself failed at this").keys("\x04")
    assert terminal.ends() == 0
    assert "Traceback" not in terminal.seen
    assert "ZeroDivisionError" in (tmp_path / "state" / "chat.log").read_text()


def test_a_resized_terminal_is_drawn_to_its_new_width(terminal: Terminal) -> None:
    terminal.sees("Ctrl+D leaves")
    terminal.child.setwinsize(40, 60)
    terminal.keys("start\r").sees("╭─ Plan " + "─" * 51 + "╮\n").keys("n\r").sees("Nothing was done")
