"""Slash commands, following a session's output, completion, and the edited lines of a plan."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from cluster.models import Names
from helmsman.errors import HelmsmanError
from helmsman.events import Asked, PlannedCall, PlanShown
from helmsman.render import Look
from helmsman.terminal import Opened, answers, edit
from helmsman.terminal.chat import Chat
from helmsman.terminal.commands import COMMANDS, find, is_command
from helmsman.terminal.completion import ChatCompleter, matching
from helmsman.terminal.follow import wants_to_follow
from helmsman.terminal.play import NAMES, host, stage
from tools.views import Plan


class Talk:
    """A chat whose screen keeps what is printed."""

    can_edit = True

    def __init__(self) -> None:
        self.printed, self.left = "", False
        self.host, self.conversation = host(), stage()
        self.chat = Chat(self, Look(width=100))

    def show(self, text: str) -> None:
        self.printed += text

    def refresh(self) -> None:
        """Nothing is drawn twice."""

    def put(self, text: str) -> None:
        self.show(f"[{text}]")

    def set_aside(self) -> None:
        """There is no input."""

    def bring_back(self) -> None:
        """There is no input."""

    def leave(self) -> None:
        self.left = True

    async def say(self, line: str) -> str:
        self.printed = ""
        self.chat.submit(line)
        await self.chat.idle()
        return self.printed

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not true():
                await asyncio.sleep(0.005)


@pytest.fixture
async def talk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Talk]:
    monkeypatch.setattr("helmsman.terminal.follow.EVERY", 0.01)
    talk = Talk()
    talk.conversation.pace = 0.01
    await talk.chat.attach(Opened(talk.conversation, talk.host), greet=False)
    yield talk
    await talk.chat.close()


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("/help", True),
        ("/h", True),
        ("/", True),
        ("/data/x is full", False),
        ("/dev/null", False),
        ("hello /help", False),
    ],
)
def test_a_path_is_no_command(line: str, command: bool) -> None:
    assert is_command(line) is command


def test_a_beginning_that_fits_one_command_is_enough() -> None:
    assert find("/he").name == "help"
    assert find("/Q").name == "quit"


def test_a_beginning_that_fits_several_says_which() -> None:
    with pytest.raises(HelmsmanError, match=r"/h fits several commands: /help, /history\."):
        find("/h")


def test_an_unknown_command_says_which_there_are() -> None:
    with pytest.raises(HelmsmanError, match=r"There is no command /xx\. There are: /help, /show"):
        find("/xx")


async def test_a_mistyped_command_is_a_sentence_and_nothing_is_sent(talk: Talk) -> None:
    assert "There is no command /xx." in await talk.say("/xx")
    assert talk.conversation.happened == []


async def test_help_lists_every_command_and_the_keys(talk: Talk) -> None:
    printed = await talk.say("/help")
    assert all(f"  /{name}" in printed for name in COMMANDS)
    assert "Alt+Enter" in printed


async def test_the_models_are_listed_and_switched_by_a_beginning(talk: Talk) -> None:
    assert "→  g" in await talk.say("/model")
    assert "From the next request on gpt-5 answers." in await talk.say("/model gp")
    assert talk.host.model == "gpt-5"
    assert "There is no model x. There are: g, gpt-5." in await talk.say("/model x")


async def test_a_standing_approval_is_added_listed_and_revoked(talk: Talk) -> None:
    assert "/approvals add TOOL" in await talk.say("/approvals")
    added = await talk.say("/approvals add start_session test-*")
    assert "start_session on test-* no longer asks. Take it back: /approvals revoke p-1" in added
    assert "p-1  start_session  test-*" in await talk.say("/app")
    await talk.say("/approvals revoke p-1")
    assert talk.host.allowed == []


async def test_what_destroys_cannot_be_approved_in_advance(talk: Talk) -> None:
    assert "always asks" in await talk.say("/approvals add terminate_sessions")
    assert talk.host.allowed == []


async def test_a_half_typed_approval_says_how_it_goes(talk: Talk) -> None:
    assert "/approvals revoke ID" in await talk.say("/approvals add")


async def test_the_history_says_what_was_done_and_how_to_undo_it(talk: Talk) -> None:
    printed = await talk.say("/hist")
    assert "a-17" in printed
    assert "cordon_node  cpu-01  done, can be undone" in printed
    assert "Say “undo”" in printed


async def test_show_without_a_result_says_so(talk: Talk) -> None:
    assert "no result to show yet" in await talk.say("/show")


async def test_a_new_conversation_leaves_the_old_one_behind(talk: Talk) -> None:
    await talk.say("start")
    before = talk.chat.conversation
    await talk.say("/new")
    assert talk.chat.conversation is not before
    assert talk.chat.story.question is None


async def test_a_conversation_is_resumed_by_number_after_the_list_or_at_once(talk: Talk) -> None:
    listed = await talk.say("/resume")
    when = datetime.fromisoformat("2026-03-01T10:00:00+09:00").astimezone().strftime("%Y-%m-%d %H:%M")
    assert f"1    {when}  3      sessions" in listed
    await talk.say("2")
    assert talk.chat.conversation is not None
    assert talk.chat.conversation.thread == "t-2"
    await talk.say("/resume 1")
    assert talk.chat.conversation.thread == "t-1"
    assert "There is no conversation t-77." in await talk.say("/resume t-77")


async def test_quit_leaves(talk: Talk) -> None:
    await talk.say("/q")
    assert talk.left


async def test_a_session_is_followed_until_it_ends(talk: Talk) -> None:
    output = talk.host.cluster.output
    talk.chat.submit("/follow resnet-sweep")
    await talk.until(lambda: "epoch 2" in talk.printed)
    output["resnet-sweep"] += "epoch 3 손실".encode()
    output["resnet-sweep"] += b" 1.8\n"
    await talk.until(lambda: "epoch 3 손실 1.8\n" in talk.printed)
    talk.host.cluster.ended.add("resnet-sweep")
    await talk.chat.idle()
    assert talk.printed == (
        "\n› /follow resnet-sweep\n"
        "Following resnet-sweep; Ctrl+C stops following, not the session.\n"
        "epoch 1 loss 2.31\nepoch 2 loss 1.97\nepoch 3 손실 1.8\n"
        "resnet-sweep has ended.\n"
    )


async def test_ctrl_c_stops_following_and_not_the_session(talk: Talk) -> None:
    talk.chat.submit("/follow resnet-sweep")
    await talk.until(lambda: "epoch 2" in talk.printed)
    talk.chat.interrupt(has_text=False)
    await talk.chat.idle()
    assert talk.printed.endswith("No longer following resnet-sweep.\n")
    assert talk.conversation.decided == []


async def test_follow_the_log_goes_on_after_the_log_that_was_shown(talk: Talk) -> None:
    talk.chat.submit("follow the log of resnet-sweep")
    await talk.until(lambda: talk.chat.follower is not None)
    talk.host.cluster.output["resnet-sweep"] += b"epoch 3\n"
    talk.host.cluster.ended.add("resnet-sweep")
    await talk.chat.idle()
    assert talk.printed.count("epoch 2 loss 1.97") == 1


async def test_the_beginning_of_a_session_is_enough_to_follow_it(talk: Talk) -> None:
    talk.host.cluster.ended.add("resnet-sweep")
    assert "resnet-sweep has ended." in await talk.say("/follow resn")


async def test_following_something_unknown_is_a_sentence(talk: Talk) -> None:
    assert "There is no session nope." in await talk.say("/follow nope")
    assert talk.chat.follower is None


@pytest.mark.parametrize(
    ("text", "follows"),
    [
        ("follow the log", True),
        ("로그 계속 보여줘", True),
        ("tail -f x", True),
        ("show the log", False),
        ("로그 보여줘", False),
    ],
)
def test_a_wish_to_follow_is_told_from_a_look(text: str, follows: bool) -> None:
    assert wants_to_follow(text) is follows


# ── completion ───────────────────────────────────────────────────────────────────────────────────


async def _names() -> Names | None:
    return NAMES


async def complete(text: str, asked: bool = True) -> list[str]:
    completer = ChatCompleter(_names, lambda: Look())
    event = CompleteEvent(completion_requested=asked, text_inserted=not asked)
    return [c.text async for c in completer.get_completions_async(Document(text), event)]


async def test_commands_are_completed_while_they_are_typed() -> None:
    assert await complete("/h", asked=False) == ["/help", "/history"]


async def test_names_are_completed_on_tab_only() -> None:
    assert await complete("stop res") == ["resnet-sweep"]
    assert await complete("stop res", asked=False) == []


async def test_what_begins_so_comes_before_what_contains_it() -> None:
    assert await complete("drain 01") == ["a100-01", "cpu-01"]
    assert (await complete("stop 비"))[0] == "비전-실험"
    assert [name for name, _ in matching(NAMES, "net")] == ["imagenet", "resnet-sweep"]


# ── answers and edits ────────────────────────────────────────────────────────────────────────────


def card(word: str | None = None, **arguments: object) -> PlanShown:
    plan = Plan(title="Start", risk="W", type_word=word)
    return PlanShown(
        question="q",
        digest="d",
        calls=[PlannedCall(id="c-1", tool="start_session", risk="W", arguments=arguments, plan=plan)],
    )


@pytest.mark.parametrize(
    ("line", "kind", "comment"),
    [
        ("y", "yes", None),
        (" YES ", "yes", None),
        ("응", "yes", None),
        ("ㅛ", "yes", None),
        ("n", "no", None),
        ("아니요", "no", None),
        ("e", "edit", None),
        ("ㄷ", "edit", None),
        ("n too big", "no", "too big"),
        ("no, use one core", "no", "use one core"),
        ("nodes please", "say", None),
        ("now what?", "say", None),
        ("yes but with 4 GPUs", "say", None),
    ],
)
def test_a_line_is_read_as_an_answer(line: str, kind: str, comment: str | None) -> None:
    answer = answers.read_answer(line, card())
    assert (answer.kind, answer.comment) == (kind, comment)


def test_a_word_is_wanted_whole() -> None:
    assert answers.read_answer("resnet", card("resnet-sweep")).kind == "say"
    assert answers.read_answer("yes", card("resnet-sweep")).kind == "word_wanted"
    assert answers.read_answer("resnet-sweep", card("resnet-sweep")).kind == "yes"


def test_a_choice_is_picked_by_number_and_everything_else_is_left_as_typed() -> None:
    question = Asked(question="q", text="which?", choices=["a", "b"])
    assert answers.read_choice("2", question) == "b"
    assert answers.read_choice("3", question) == "3"
    assert answers.read_choice("neither of them, thanks", question) == "neither of them, thanks"


VALUES = st.recursive(
    st.one_of(st.text(), st.integers(-(2**53), 2**53), st.booleans(), st.floats(allow_nan=False, allow_infinity=False)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,12}", fullmatch=True), VALUES, max_size=5), st.integers(0, 99))
def test_arguments_survive_being_written_as_lines_and_read_back(arguments: dict[str, object], extra: int) -> None:
    call = card(**arguments).calls[0]
    added = edit.as_lines([call]) + f"\nZ = {extra}"
    assert edit.from_lines(edit.as_lines([call]), [call]) == {}
    assert edit.from_lines(added, [call]) == {"c-1": {**arguments, "Z": extra}}


def test_of_several_calls_only_the_changed_one_is_edited() -> None:
    first = PlannedCall(id="a", tool="start_session", risk="W", arguments={"cpu": 1}, plan=Plan(title="1", risk="W"))
    second = PlannedCall(id="b", tool="cordon_node", risk="W", arguments={"node": "x", "reason": None}, plan=first.plan)
    lines = edit.as_lines([first, second])
    assert lines == '[1]  # start_session\ncpu = 1\n\n[2]  # cordon_node\nnode = "x"'
    assert edit.from_lines(lines.replace('"x"', '"y"'), [first, second]) == {"b": {"node": "y"}}
    with pytest.raises(edit.BadEdit, match=r"\[1\] to \[2\]"):
        edit.from_lines("cpu = 1\n" + lines, [first, second])
