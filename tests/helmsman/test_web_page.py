"""The page in a real Chromium, before a real server that plays a script."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, async_playwright, expect

from cluster.models import Names
from helmsman.events import Answered, Asked, CallEnded, CallStarted, Event, PlannedCall, PlanShown, Words
from helmsman.web.scripted import Scene, Scripted, ScriptedConversations
from helmsman.web.serve import serve
from tools.views import Cell, Chart, Facts, Plan, PlanLine, Table, Text, View

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH (Debian: apt-get install chromium)"),
    pytest.mark.asyncio(loop_scope="module"),
]
ATTACK = '<img src=x onerror="document.title=`owned`"><script>document.title="owned"</script>'
expect.set_options(timeout=4_000)


def plan(question: str, title: str, **arguments: Any) -> PlanShown:
    card = Plan(
        title=title, risk="W", effects=[PlanLine(text="starts now on a100-02", owner="jiwoo")], undo="undo stops it"
    )
    return PlanShown(
        question=question,
        digest=f"digest of {question}",
        calls=[PlannedCall(id="c1", tool="start_session", risk="W", arguments=arguments, plan=card)],
    )


async def show(stage: Scripted, view: View) -> None:
    await stage.say(CallStarted(id="c1", tool="list_sessions", risk="R", arguments={"name": ATTACK}))
    await stage.say(CallEnded(id="c1", tool="list_sessions", status="done", view=view))


async def start(stage: Scripted) -> None:
    arguments: dict[str, Any] = {"name": "bert", "gpu": 2}
    decided = await stage.decision(plan("q1", "Start bert: 2 GPUs", **arguments))
    while decided.decision == "edit":
        decided = await stage.decision(plan("q2", "Start bert again", **arguments))
    done = f"decided {decided.decision}: {decided.comment}"
    await stage.say(Answered(text=done))


async def drop(stage: Scripted) -> None:
    card = Plan(title="Delete old-data", risk="D", type_word="old-data")
    call = PlannedCall(id="c1", tool="delete_folder", risk="D", arguments={"folder": "old-data"}, plan=card)
    decided = await stage.decision(PlanShown(question="q1", digest="d", calls=[call]))
    await stage.say(Answered(text=f"decided {decided.decision}"))


async def attack(stage: Scripted) -> None:
    await show(stage, Table(title=ATTACK, columns=[ATTACK], rows=[[Cell(text=ATTACK)]], note=ATTACK))
    await show(stage, Facts(title=ATTACK, facts=[(ATTACK, Cell(text=ATTACK))]))
    await show(stage, Text(title=ATTACK, text=ATTACK, code=True))
    await show(stage, Chart(title=ATTACK, unit=ATTACK, bars=[(ATTACK, 1, ATTACK)]))
    await stage.say(Words(delta=ATTACK))
    await stage.say(Answered(text=f"So: {ATTACK}"))
    await stage.decision(plan("q1", ATTACK, name=ATTACK))


async def scene(stage: Scripted, text: str) -> None:
    """Lines and what they lead to."""
    if text == "start":
        await start(stage)
    elif text == "delete":
        await drop(stage)
    elif text == ATTACK:
        await attack(stage)
    elif text == "which":
        await stage.say(Asked(question="k1", text="Which one?", choices=["bert-a", "bert-b"]))
    elif text == "twice":
        await show(stage, Text(title="bert was stopped", text="2 GPUs are free"))
        await stage.say(Answered(text="bert was stopped\nAsk for more."))
    elif text == "forever":
        await asyncio.Event().wait()
    elif text == "table":
        row = [Cell(text=f"column {i} of a wide table") for i in range(12)]
        await show(stage, Table(title="wide", columns=["head"] * 12, rows=[row] * 30))
    else:
        await stage.say(Answered(text=f"heard {text}"))


class Breaking(Scripted):
    """Its streams end whenever `breaks` says so."""

    def __init__(self, thread: str, scene: Scene) -> None:
        super().__init__(thread, scene)
        self.breaks = asyncio.Event()

    async def events(self, after: int = 0, follow: bool = True) -> AsyncIterator[Event]:
        async for event in super().events(after, follow):
            yield event
            if follow and self.breaks.is_set():
                self.breaks.clear()
                return


class BreakingConversations(ScriptedConversations):
    kind = Breaking


Served = tuple[BreakingConversations, list[str]]


# ── the stage ──


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def served() -> AsyncIterator[Served]:
    """The conversations, and the links as they are announced."""
    conversations = BreakingConversations(scene, Names(nodes=["a100-01", "a100-03"]))
    links: list[str] = []
    end = asyncio.Event()
    server = asyncio.create_task(serve(conversations, links.append, until=end))
    while not links:
        await asyncio.sleep(0)
    yield conversations, links
    end.set()
    await server


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def context(chromium: Browser) -> AsyncIterator[BrowserContext]:
    context = await chromium.new_context(locale="en-US", viewport={"width": 1280, "height": 800})
    context.set_default_timeout(5_000)
    yield context
    await context.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(context: BrowserContext, served: Served) -> AsyncIterator[Page]:
    """The page on a new conversation. Whatever it writes to the console as an error fails the test."""
    page = await context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if is_error(message) else None)
    await page.goto(served[1][-1])
    await page.get_by_role("button", name="New conversation").click()
    await expect(page.get_by_role("heading", name="What should the cluster do?")).to_be_visible()
    yield page
    await page.close()
    assert errors == []


def is_error(message: ConsoleMessage) -> bool:
    """Chromium also writes refused requests there, which the page tells by itself."""
    return message.type == "error" and not message.text.startswith("Failed to load resource")


async def say(page: Page, text: str) -> None:
    await page.get_by_label("Your request").fill(text)
    await page.keyboard.press("Enter")


def card(page: Page) -> Locator:
    return page.locator(".card").last


async def stage_of(page: Page, served: Served) -> Any:
    """The conversation that the page shows, as another face holds it."""
    await page.wait_for_url(re.compile("#/t"))
    return await served[0].open(page.url.partition("#/")[2])


# ── plans ──


async def test_a_plan_is_shown_with_its_consequences_and_approved(page: Page) -> None:
    await say(page, "start")
    await expect(card(page)).to_contain_text("Start bert: 2 GPUs")
    await expect(card(page)).to_contain_text("starts now on a100-02belongs to jiwoo")
    await expect(card(page)).to_contain_text("undo stops it")
    await page.get_by_role("button", name="Approve").click()
    await expect(card(page).locator(".status")).to_have_text("Approved in the browser")
    await expect(page.get_by_text("decided yes: None")).to_be_visible()
    await expect(card(page).get_by_role("button")).to_have_count(0)


async def test_a_plan_takes_the_focus_but_not_the_enter_key(page: Page) -> None:
    await say(page, "start")
    await expect(card(page)).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(card(page).locator(".status")).to_have_text("Waits for your decision")
    await page.keyboard.press("Tab")  # the exact call
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("button", name="Approve")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("decided yes")).to_be_visible()


async def test_a_plan_does_not_take_the_focus_from_a_person_who_writes(page: Page, served: Served) -> None:
    await say(page, "hello")
    await expect(page.get_by_text("heard hello")).to_be_visible()
    stage = await stage_of(page, served)
    await page.get_by_label("Your request").fill("half a sen")
    await stage.send("start", "terminal")
    await expect(card(page)).to_be_visible()
    await expect(page.get_by_label("Your request")).to_be_focused()


async def test_a_heavy_plan_wants_its_word_typed(page: Page) -> None:
    await say(page, "delete")
    approve = page.get_by_role("button", name="Approve")
    await expect(card(page)).to_contain_text("This cannot be put back.")
    await expect(approve).to_be_disabled()
    await page.get_by_label("Type old-data to approve").fill("old-dat")
    await expect(approve).to_be_disabled()
    await page.get_by_label("Type old-data to approve").fill("old-data")
    await approve.click()
    await expect(page.get_by_text("decided yes")).to_be_visible()


async def test_a_plan_is_rejected_with_a_comment(page: Page) -> None:
    await say(page, "start")
    await page.get_by_role("button", name="Reject with a comment").click()
    await page.get_by_label("What should be different?").fill("only one GPU")
    await page.get_by_role("button", name="Reject and send").click()
    await expect(page.get_by_text("decided no: only one GPU")).to_be_visible()
    await expect(card(page)).to_contain_text("Rejected in the browser")


async def test_a_plan_is_edited_and_asked_again(page: Page) -> None:
    await say(page, "start")
    await page.get_by_role("button", name="Edit").click()
    await page.get_by_label("gpu", exact=True).fill("many")
    await page.get_by_role("button", name="Show the new plan").click()
    await expect(card(page)).to_contain_text("gpu cannot be read")
    await page.get_by_label("gpu", exact=True).fill("4")
    await page.get_by_role("button", name="Add an argument").click()
    await page.get_by_placeholder("Name").fill("priority")
    await page.get_by_placeholder("Value").fill("20")
    async with page.expect_request("**/decide") as sent:
        await page.get_by_role("button", name="Show the new plan").click()
    verdict = (await sent.value).post_data_json
    assert verdict == {
        "question": "q1",
        "digest": "digest of q1",
        "decision": "edit",
        "edited": {"c1": {"name": "bert", "gpu": 4, "priority": 20}},
    }
    await expect(card(page)).to_contain_text("Start bert again")
    await expect(page.locator(".card").first).to_contain_text("Edited in the browser; a new plan follows")


async def test_a_plan_that_was_answered_in_the_terminal_closes_here(page: Page, served: Served) -> None:
    await say(page, "start")
    await expect(card(page)).to_be_visible()
    stage = await stage_of(page, served)
    await stage.decide("q1", "digest of q1", "yes", "terminal")
    await expect(card(page).locator(".status")).to_have_text("Approved in the terminal")
    await expect(card(page).get_by_role("button")).to_have_count(0)


async def test_a_plan_from_the_terminal_is_answered_here_after_a_reload(page: Page, served: Served) -> None:
    await say(page, "hello")
    await expect(page.get_by_text("heard hello")).to_be_visible()
    stage = await stage_of(page, served)
    await stage.send("start", "terminal")
    await page.reload()
    await expect(page.get_by_text("in the terminal")).to_be_visible()
    await page.get_by_role("button", name="Approve").click()
    await expect(page.get_by_text("decided yes")).to_be_visible()


async def test_a_decision_that_comes_too_late_says_so(page: Page) -> None:
    problem = {"code": "stale", "detail": "Too late."}
    await page.route("**/decide", lambda route: route.fulfill(status=409, json=problem))
    await say(page, "delete")
    await page.get_by_role("button", name="Reject", exact=True).click()
    await expect(card(page).get_by_role("alert")).to_have_text("Too late.")
    await expect(page.get_by_role("button", name="Reject", exact=True)).to_be_enabled()


# ── what comes from the cluster ──


async def test_markup_in_results_and_lines_stays_text(page: Page) -> None:
    await say(page, ATTACK)
    await expect(card(page)).to_be_visible()
    turns = page.locator("#turns")
    await expect(turns.locator("img, script, iframe, [onerror]")).to_have_count(0)
    for place in ["td, tbody th", "caption", "dt", "dd", "pre", ".answer", ".said p", ".card h3", ".trace", ".note"]:
        await expect(turns.locator(place).first).to_contain_text(ATTACK)
    assert await page.title() == "● Your decision is needed · Helmsman"


async def test_an_answer_does_not_repeat_what_the_result_says(page: Page) -> None:
    await say(page, "twice")
    await expect(page.locator(".answer")).to_have_text("Ask for more.")
    await expect(page.get_by_text("bert was stopped")).to_have_count(1)


async def test_the_browser_itself_refuses_markup(context: BrowserContext, served: Served) -> None:
    page = await context.new_page()
    await page.goto(served[1][-1])
    attempt = "() => { try { document.body.innerHTML = '<b>x</b>'; } catch (error) { return error.name; } }"
    assert await page.evaluate(attempt) == "TypeError"


# ── lines ──


async def test_a_question_is_answered_by_a_button(page: Page) -> None:
    await say(page, "which")
    await page.get_by_role("button", name="bert-b").click()
    await expect(page.get_by_text("heard bert-b")).to_be_visible()
    await expect(page.get_by_role("button", name="bert-a")).to_be_disabled()


async def test_shift_enter_begins_a_line_and_enter_sends_both(page: Page) -> None:
    await page.get_by_label("Your request").press_sequentially("one")
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("two")
    await page.keyboard.press("Enter")
    await expect(page.locator(".said p")).to_have_text("one\ntwo", use_inner_text=True)


async def test_the_enter_that_ends_a_hangul_syllable_sends_nothing(page: Page) -> None:
    await page.get_by_label("Your request").focus()
    keyboard = await page.context.new_cdp_session(page)
    await keyboard.send("Input.imeSetComposition", {"text": "노드", "selectionStart": 2, "selectionEnd": 2})
    enter = {"type": "rawKeyDown", "windowsVirtualKeyCode": 229, "code": "Enter", "key": "Enter"}
    await keyboard.send("Input.dispatchKeyEvent", enter)
    await keyboard.send("Input.insertText", {"text": "노드"})
    await expect(page.get_by_label("Your request")).to_have_value("노드")
    await expect(page.locator(".said")).to_have_count(0)
    await page.keyboard.press("Enter")
    await expect(page.locator(".said p")).to_have_text(["노드"])


async def test_a_running_turn_is_stopped_by_the_button(page: Page) -> None:
    await say(page, "forever")
    await page.get_by_role("button", name="Stop").click()
    await expect(page.get_by_text("Stopped. Nothing had been changed.")).to_be_visible()
    await expect(page.get_by_role("button", name="Stop")).to_be_hidden()


async def test_names_of_the_cluster_complete_a_word(page: Page) -> None:
    await page.get_by_label("Your request").press_sequentially("cordon a1")
    await page.get_by_role("button", name="a100-03").click()
    await expect(page.get_by_label("Your request")).to_have_value("cordon a100-03 ")


# ── the connection and the frame ──


async def test_a_broken_stream_goes_on_where_it_was(page: Page, served: Served) -> None:
    await say(page, "one")
    await expect(page.get_by_text("heard one")).to_be_visible()
    stage = await stage_of(page, served)
    async with page.expect_request("**/events*"):
        stage.breaks.set()
        await stage.send("two", "terminal")
        await stage.send("three", "terminal")
    await expect(page.get_by_text("heard three")).to_be_visible()
    await expect(page.locator(".said p")).to_have_text(["one", "two", "three"])


async def test_a_server_that_was_away_is_found_again_where_it_was(page: Page, served: Served) -> None:
    await say(page, "one")
    await expect(page.get_by_text("heard one")).to_be_visible()
    stage = await stage_of(page, served)
    await page.route("**/events*", lambda route: route.fulfill(status=404))
    async with page.expect_response("**/events*"):
        stage.breaks.set()
        await stage.send("two", "terminal")
    await expect(page.locator("#connection")).to_have_text("Connection lost; trying again")
    await stage.send("three", "terminal")
    await page.unroute("**/events*")
    await expect(page.get_by_text("heard three")).to_be_visible()
    await expect(page.locator(".said p")).to_have_text(["one", "two", "three"])
    await expect(page.locator("#connection")).to_be_empty()


async def test_a_page_whose_cookie_is_no_longer_valid_says_what_to_do(chromium: Browser, served: Served) -> None:
    context = await chromium.new_context(locale="en-US")
    page = await context.new_page()
    await page.goto(served[1][-1])
    await page.get_by_role("button", name="New conversation").click()
    await context.clear_cookies()
    await say(page, "hello")
    await expect(page.get_by_role("alert")).to_contain_text("Start helmsman web again and open the link")
    await expect(page.get_by_label("Your request")).to_have_value("hello")
    await context.close()


async def test_conversations_are_listed_and_opened_again(page: Page) -> None:
    await say(page, "the first of two")
    await expect(page.get_by_text("heard the first of two")).to_be_visible()
    await page.get_by_role("button", name="New conversation").click()
    await say(page, "the second")
    await expect(page.get_by_text("heard the second")).to_be_visible()
    await page.get_by_role("link", name="the first of two").click()
    await expect(page.get_by_text("heard the first of two")).to_be_visible()
    await expect(page.get_by_text("heard the second")).to_have_count(0)


async def test_a_korean_browser_gets_a_korean_page(chromium: Browser, served: Served) -> None:
    context = await chromium.new_context(locale="ko-KR")
    page = await context.new_page()
    await page.goto(served[1][-1])
    await page.get_by_role("button", name="새 대화").click()
    await page.get_by_label("요청").fill("start")
    await page.get_by_role("button", name="보내기").click()
    await page.get_by_role("button", name="승인").click()
    await expect(page.locator(".card .status").last).to_have_text("브라우저에서 승인함")
    assert await page.locator("html").get_attribute("lang") == "ko"
    await context.close()


async def test_nothing_is_wider_than_a_phone(page: Page) -> None:
    await say(page, "table")
    await expect(page.locator("tbody tr")).to_have_count(30)
    await expect(page.get_by_role("button", name="Send")).to_be_enabled()
    await say(page, "delete")
    await expect(card(page)).to_be_visible()
    await page.set_viewport_size({"width": 390, "height": 844})
    assert await page.evaluate("document.documentElement.scrollWidth") == 390
    assert await page.evaluate("document.getElementById('conversation').scrollWidth") <= 390
    box = await page.get_by_role("button", name="Approve").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
