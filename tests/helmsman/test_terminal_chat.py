"""The chat without its terminal: whole transcripts of scripted conversations."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from cluster.sentence import Sentence
from helmsman.errors import HelmsmanError
from helmsman.events import Asked, CallEnded, Decided, Event, PlannedCall, PlanShown, UserSaid, Words
from helmsman.render import Look
from helmsman.terminal import Opened
from helmsman.terminal.chat import Chat
from helmsman.terminal.play import host, stage
from helmsman.terminal.scripted import WHEN, ScriptedConversation, ScriptedHost
from helmsman.terminal.story import Story
from tools.views import Plan, Text


class Paper:
    """A screen that keeps what is printed, and what stands in the input."""

    can_edit = True

    def __init__(self) -> None:
        self.printed, self.input, self.aside, self.left = "", "", "", False

    def show(self, text: str) -> None:
        self.printed += text

    def refresh(self) -> None:
        """Nothing is drawn twice on paper."""

    def put(self, text: str) -> None:
        self.input = text

    def set_aside(self) -> None:
        self.aside, self.input = self.input, ""

    def bring_back(self) -> None:
        self.input, self.aside = self.aside, ""

    def leave(self) -> None:
        self.left = True


class Desk:
    """A chat on paper with the play's cluster; `say` types a line and waits until all is quiet."""

    def __init__(self) -> None:
        self.paper, self.conversation, self.host = Paper(), stage(), host()
        self.conversation.pace = 0.01
        self.chat = Chat(self.paper, Look(width=80))

    async def open(self) -> "Desk":
        async def opener() -> Opened:
            return Opened(self.conversation, self.host)

        self.chat.start(opener)
        await self.chat.idle()
        self.paper.printed = ""
        return self

    async def say(self, *lines: str) -> str:
        """What was printed since the last time."""
        for line in lines:
            self.chat.submit(line)
            await self.chat.idle()
        return self.take()

    def take(self) -> str:
        printed, self.paper.printed = self.paper.printed, ""
        return printed

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not true():
                await asyncio.sleep(0.005)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = await Desk().open()
    yield desk
    await desk.chat.close()


async def test_a_request_is_told_from_line_to_answer(desk: Desk) -> None:
    assert await desk.say("sessions") == (
        "\n› sessions\n"
        "3 sessions\n"
        "name          user   state    GPU   memory  node      since\n"
        "resnet-sweep  alice  running    4  256 GiB  a100-02     3 h\n"
        "vit-large     bob    pending   16    1 TiB           40 min\n"
        "비전-실험     minho  running  0.5    8 GiB  a100-01  12 min\n"
        "2 sessions run, 1 waits; the longest has waited 40 min.\n"
    )


async def test_a_plan_is_shown_and_a_yes_carries_it_out(desk: Desk) -> None:
    assert await desk.say("start", "y") == (
        "\n› start\n"
        "╭─ Plan ───────────────────────────────────────────────────────────────────────╮\n"
        "│ Start bert-tune: 2 cores, 4 GiB                                              │\n"
        "│ • bert-tune starts now on a100-01 with 2 cores and 4 GiB                     │\n"
        "│ • Of your quota 6 GPUs and 30 cores are left                                 │\n"
        "│ To put it back: stop bert-tune                                               │\n"
        "│                                                                              │\n"
        "│ y yes · n no (or n and why) · e edit                                         │\n"
        "╰──────────────────────────────────────────────────────────────────────────────╯\n"
        "→ yes\n"
        "bert-tune started on a100-01.\n"
    )
    assert [d.decision for d in desk.conversation.decided] == ["yes"]


@pytest.mark.parametrize("line", ["n", "no", "아니", "ㅜ", "취소"])
async def test_a_no_does_nothing(desk: Desk, line: str) -> None:
    assert (await desk.say("start", line)).endswith("→ no\nNothing was done.\n")
    assert [d.decision for d in desk.conversation.decided] == ["no"]


async def test_a_no_can_say_why(desk: Desk) -> None:
    printed = await desk.say("start", "n use only one core")
    assert printed.endswith("→ no: use only one core\nNothing was done.\n")
    assert desk.conversation.decided[0].comment == "use only one core"


async def test_any_other_line_goes_to_the_conversation_as_the_answer(desk: Desk) -> None:
    await desk.say("start", "what does that cost?")
    said = [event.body.text for event in desk.conversation.happened if isinstance(event.body, UserSaid)]
    assert said == ["start", "what does that cost?"]
    assert desk.conversation.decided == []


async def test_a_card_with_a_word_takes_that_word_and_no_plain_yes(desk: Desk) -> None:
    refused = await desk.say("stop", "y", "yes", "네")
    assert refused.count("This one wants the word resnet-sweep typed, or n for no.") == 3
    assert desk.conversation.decided == []
    assert "resnet-sweep was stopped." in await desk.say("resnet-sweep")


async def test_an_edited_plan_is_previewed_and_asked_again(desk: Desk) -> None:
    await desk.say("start", "e")
    assert desk.paper.input == (
        '# start_session\ncommand = "python train.py"\ncpu = 2\nmemory = "4g"\nmounts = ["imagenet"]\nenv = {A = "1"}'
    )
    printed = await desk.say(desk.paper.input.replace("cpu = 2", "cpu = 8"))
    assert "→ changed; here is the new plan" in printed
    assert "│ Start bert-tune: 8 cores, 4g " in printed
    assert "bert-tune started" in await desk.say("y")


async def test_an_edit_that_cannot_be_read_is_given_back_to_be_mended(desk: Desk) -> None:
    await desk.say("start", "e")
    printed = await desk.say("cpu = ")
    assert "can't be read as `name = value` lines" in printed
    assert desk.paper.input == "cpu = "
    assert desk.conversation.decided == []


async def test_ctrl_c_drops_an_edit_and_the_plan_stays_open(desk: Desk) -> None:
    await desk.say("start", "e")
    assert desk.chat.interrupt(has_text=True)
    assert "bert-tune started" in await desk.say("y")


async def test_a_number_picks_one_of_the_choices(desk: Desk) -> None:
    assert await desk.say("which", "2") == (
        "\n› which\nWhich node: a100-01 or a100-02?\n  1  a100-01\n  2  a100-02\n\n› a100-02\nThen a100-02.\n"
    )


async def test_ctrl_c_stops_the_turn_and_says_what_had_happened(desk: Desk) -> None:
    desk.chat.submit("slow")
    await desk.until(lambda: desk.chat.doing == "draining a100-02")
    desk.chat.interrupt(has_text=False)
    await desk.chat.idle()
    assert desk.take() == (
        "\n› slow\na100-02 takes no new sessions.\n"
        "Stopped. This had already happened:\n  • a100-02 takes no new sessions.\n"
    )
    assert desk.chat.doing is None


async def test_ctrl_c_at_an_empty_prompt_says_how_to_leave(desk: Desk) -> None:
    desk.chat.interrupt(has_text=False)
    assert desk.take() == "Ctrl+D or /quit leaves; sessions go on running.\n"


async def test_ctrl_c_with_something_typed_empties_the_line_only(desk: Desk) -> None:
    assert desk.chat.interrupt(has_text=True)
    assert desk.take() == ""


async def test_ctrl_c_at_a_plan_is_a_no(desk: Desk) -> None:
    await desk.say("start")
    desk.chat.interrupt(has_text=False)
    await desk.chat.idle()
    assert [d.decision for d in desk.conversation.decided] == ["no"]


async def test_lines_typed_during_a_turn_are_sent_after_it(desk: Desk) -> None:
    desk.chat.submit("sessions")
    desk.chat.submit("hello")
    await desk.chat.idle()
    printed = desk.take()
    assert printed.index("2 sessions run") < printed.index("› hello") < printed.index("You said: hello")


async def test_a_yes_typed_before_the_plan_was_seen_does_not_approve_it(desk: Desk) -> None:
    desk.chat.submit("start")
    desk.chat.submit("yes")
    await desk.chat.idle()
    assert desk.conversation.decided == []
    assert desk.paper.input == "yes"
    assert "the question comes first" in desk.take()


async def test_what_was_being_typed_is_set_aside_while_a_question_is_open(desk: Desk) -> None:
    desk.chat.submit("start")
    desk.paper.input = "half a li"
    await desk.chat.idle()
    assert desk.paper.input == ""
    await desk.say("y")
    assert desk.paper.input == "half a li"


async def test_a_question_answered_in_another_face_closes_here_and_says_where(desk: Desk) -> None:
    await desk.say("start")
    await desk.conversation.decide("q-1", "d-Start bert-tune: 2 cores, 4 GiB", "yes", "web")
    await desk.until(lambda: desk.chat.story.question is None and "started" in desk.paper.printed)
    assert "answered in web: yes\nbert-tune started on a100-01.\n" in desk.take()
    assert "You said: y" in await desk.say("y")


async def test_an_answer_that_comes_too_late_says_so(desk: Desk) -> None:
    await desk.say("start")
    question = desk.chat.story.question
    await desk.conversation.decide("q-1", "d-Start bert-tune: 2 cores, 4 GiB", "no", "web")
    desk.chat.story.question = question
    assert "That question has been answered already." in await desk.say("y")


async def test_what_another_face_says_appears_here_with_its_name(desk: Desk) -> None:
    await desk.conversation.send("hello", "web")
    await desk.until(lambda: "You said" in desk.paper.printed)
    assert desk.take() == "\n› hello  (web)\nYou said: hello\n"


async def test_a_long_result_is_cut_and_shown_whole_on_demand(desk: Desk) -> None:
    first = await desk.say("long")
    assert "… 62 more lines; /show prints all of it" in first
    assert "session-100" not in first
    assert "session-100" in await desk.say("/sh")


async def test_words_are_seen_as_they_come_and_printed_once(desk: Desk) -> None:
    desk.conversation.pace = 0.2
    desk.chat.submit("tell me")
    await desk.until(lambda: "You said:" in desk.chat.story.live)
    assert "You said" not in desk.paper.printed
    assert desk.chat.story.tail(8).startswith("You said:")
    await desk.chat.idle()
    assert desk.take().count("You said: tell me") == 1
    assert desk.chat.story.live == ""


async def test_an_answer_that_only_repeats_the_result_is_not_said_twice(desk: Desk) -> None:
    assert (await desk.say("start", "y")).count("bert-tune started on a100-01.") == 1


async def test_a_mistake_inside_is_one_sentence_and_the_chat_goes_on(desk: Desk) -> None:
    desk.conversation.script = _fails
    printed = await desk.say("anything")
    assert "Helmsman itself failed at this (ZeroDivisionError: division by zero)" in printed
    assert "Traceback" not in printed
    desk.conversation.script = stage().script
    assert "You said: hello" in await desk.say("hello")


async def _fails(conversation: ScriptedConversation, text: str) -> None:
    raise ZeroDivisionError("division by zero")


async def test_a_cluster_that_cannot_be_opened_is_a_sentence_and_an_exit_code() -> None:
    async def opener() -> Opened:
        raise HelmsmanError(Sentence(text="The server does not answer."))

    paper = Paper()
    chat = Chat(paper, Look())
    chat.start(opener)
    chat.submit("typed already")
    await chat.idle()
    assert (paper.printed, paper.left, chat.exit_code) == ("The server does not answer.\n", True, 5)
    await chat.close()


async def test_what_is_typed_while_the_cluster_opens_is_sent_afterwards() -> None:
    opened = asyncio.Event()
    conversation = stage()

    async def opener() -> Opened:
        await opened.wait()
        return Opened(conversation, host())

    paper = Paper()
    chat = Chat(paper, Look())
    chat.start(opener)
    chat.submit("hello")
    opened.set()
    await chat.idle()
    assert paper.printed.index("riverside") < paper.printed.index("› hello") < paper.printed.index("You said: hello")
    await chat.close()


async def test_the_welcome_says_where_one_is_and_what_one_can_say() -> None:
    desk = Desk()

    async def opener() -> Opened:
        return Opened(desk.conversation, desk.host)

    desk.chat.start(opener)
    await desk.chat.idle()
    assert desk.take() == (
        "riverside (simulated)\n"
        "20 nodes · 37.5 of 128 GPUs free · 32 sessions run, 6 wait · 1 taking no work\n"
        "\n"
        "  which sessions are idle?\n"
        "  start a pytorch session with 4 GPUs\n"
        "  drain a node for maintenance\n"
        "\n"
        "Say it in English or Korean. /help lists what else there is, Ctrl+D leaves.\n"
    )
    await desk.chat.close()


async def test_leaving_in_the_middle_of_a_turn_stops_it_and_says_what_happened(desk: Desk) -> None:
    desk.chat.submit("slow")
    await desk.until(lambda: desk.chat.doing == "draining a100-02")
    await desk.chat.close()
    assert "This had already happened" in desk.take()


async def test_a_question_that_stood_open_is_open_again_after_coming_back(desk: Desk) -> None:
    await desk.say("start")
    again = Desk()
    again.conversation = desk.conversation
    await again.open()
    assert isinstance(again.chat.story.question, PlanShown)
    assert "bert-tune started" in await again.say("y")
    await again.chat.close()


async def test_coming_back_tells_the_last_turns_only(desk: Desk) -> None:
    await desk.say("one", "two", "three", "four", "five")
    again = Chat(Paper(), Look())
    await again.attach(Opened(desk.conversation, desk.host), greet=False)
    printed = again.screen.printed  # type: ignore[attr-defined]
    assert "(2 turns before this are left out)" in printed
    assert "› two" not in printed
    assert "› three" in printed
    assert again.doing is None
    await again.close()


async def test_text_in_events_cannot_steer_the_terminal(desk: Desk) -> None:
    evil = "\x1b]0;owned\x07\x1b[2Jx"

    async def script(conversation: ScriptedConversation, text: str) -> None:
        await conversation.emit(Words(delta=evil))
        await conversation.emit(CallEnded(id="c", tool="t", status="done", view=Text(text=evil, code=True)))
        plan = Plan(title=evil, risk="W", undo=evil)
        call = PlannedCall(id="c", tool="t", risk="W", arguments={}, plan=plan)
        await conversation.ask(PlanShown(question="q", digest="d", calls=[call]))
        await conversation.ask(Asked(question="q", text=evil, choices=[evil]))

    desk.conversation.script = script
    printed = await desk.say(evil, "something else", evil)
    assert "\x1b" not in printed
    assert "\x07" not in printed
    assert "\x1b" not in desk.chat.story.tail(8)


async def test_a_standing_approval_is_said_when_it_answers(desk: Desk) -> None:
    async def script(conversation: ScriptedConversation, text: str) -> None:
        await conversation.emit(Decided(question="q", decision="yes", face="terminal", automatic=True))

    desk.conversation.script = script
    assert "Allowed by your standing approval" in await desk.say("start")


def test_the_scripted_host_is_a_host() -> None:
    made: ScriptedHost = host()
    assert made.user == "minho"


async def test_a_mistake_while_opening_is_a_sentence_and_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    async def opener() -> Opened:
        raise ZeroDivisionError("nothing there")

    paper = Paper()
    chat = Chat(paper, Look())
    chat.start(opener)
    await chat.idle()
    assert "Helmsman itself failed at this (ZeroDivisionError: nothing there)" in paper.printed
    assert (paper.left, chat.exit_code) == (True, 5)
    await chat.close()


async def test_a_line_that_came_while_another_face_was_at_it_is_given_back(desk: Desk) -> None:
    elsewhere = asyncio.create_task(desk.conversation.send("slow", "web"))
    await desk.until(lambda: desk.chat.doing == "draining a100-02")
    assert "Another turn is running." in await desk.say("what is running?")
    assert desk.paper.input == "what is running?"
    await desk.conversation.stop()
    await elsewhere


class Laggard(ScriptedConversation):
    """A conversation whose followers hear nothing, as a slow store's would for a while."""

    async def events(self, after: int = 0, follow: bool = True) -> AsyncIterator[Event]:
        if follow:
            await asyncio.Event().wait()
        async for event in super().events(after, follow=False):
            yield event


async def test_a_question_is_on_the_screen_before_the_next_line_is_looked_at() -> None:
    desk = Desk()
    desk.conversation = Laggard(stage().script, pace=0.01)
    await desk.open()
    desk.chat.submit("start")
    desk.chat.submit("yes")
    await desk.chat.idle()
    assert "╭─ Plan" in desk.take()
    assert desk.conversation.decided == []
    await desk.chat.close()


def test_an_event_that_comes_twice_is_told_once() -> None:
    story = Story(Look())
    event = Event(seq=1, at=WHEN, thread="t", body=UserSaid(text="hello", face="terminal"))
    assert [story.take(event), story.take(event)] == ["\n› hello\n", ""]


async def test_a_turn_that_was_never_ended_does_not_spin_for_ever_after_coming_back() -> None:
    conversation = stage()
    await conversation.emit(UserSaid(text="hello", face="terminal"))
    chat = Chat(Paper(), Look())
    await chat.attach(Opened(conversation, host()), greet=False)
    assert chat.doing is None
    await chat.close()
