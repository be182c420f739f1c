"""The slash commands. Any beginning of a name that fits one command only is enough."""

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from cluster.models import AuditEntry
from cluster.sentence import S, Sentence
from helmsman.errors import HelmsmanError
from helmsman.render import one_line, render
from helmsman.terminal.host import Host, Opened
from tools.views import Cell, Facts, Table

if TYPE_CHECKING:
    from helmsman.terminal.chat import Chat

HISTORY = 20
"""Entries that /history shows."""


@dataclass(frozen=True)
class Command:
    name: str
    arguments: str
    about: Sentence
    run: Callable[["Chat", str], Awaitable[None]]


def is_command(line: str) -> bool:
    """A first word of a slash and letters; a path like /data/x is none."""
    return re.match(r"\s*/[a-zA-Z]*(\s|$)", line) is not None


def find(word: str) -> Command:
    """The command that `word` ("/he") begins. Raises with the candidates when there's none or more than one."""
    name = word.removeprefix("/").lower()
    if name in COMMANDS:
        return COMMANDS[name]
    fitting = [command for command in COMMANDS.values() if command.name.startswith(name)]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise HelmsmanError(S("There is no command {word}. There are: {all}.", word=word, all=_slashed(COMMANDS)))
    candidates = _slashed(command.name for command in fitting)
    raise HelmsmanError(S("{word} fits several commands: {candidates}.", word=word, candidates=candidates))


async def run(chat: "Chat", line: str) -> None:
    """Find the command of `line` and run it; errors are `HelmsmanError` or `ClusterError`."""
    word, _, argument = line.strip().partition(" ")
    command = find(word)
    await command.run(chat, argument.strip())


def _slashed(names: Iterable[str]) -> str:
    return ", ".join(f"/{name}" for name in names)


# ── the commands ─────────────────────────────────────────────────────────────────────────────────


async def _help(chat: "Chat", argument: str) -> None:
    look = chat.look
    rows = [(f"/{c.name} {c.arguments}".strip(), Cell(text=look.say(c.about))) for c in COMMANDS.values()]
    keys = [(look.say(key), Cell(text=look.say(about))) for key, about in KEYS]
    title = S("Say what you want of the cluster, in English or Korean. Besides that there is:")
    chat.screen.show(render(Facts(title=look.say(title), facts=rows), look))
    chat.screen.show(render(Facts(title=look.say(S("Keys")), facts=keys), look))


async def _show(chat: "Chat", argument: str) -> None:
    text = chat.story.everything()
    if text:
        chat.screen.show(text)
    else:
        chat.tell(S("There is no result to show yet."), "muted")


async def _model(chat: "Chat", argument: str) -> None:
    host = _host(chat)
    models = await host.models()
    if not argument:
        rows = [_row("→" if each.current else "", each.name, each.about) for each in models]
        note = chat.look.say(S("/model NAME switches."))
        _table(chat, S("Models"), [None, S("name"), S("where")], rows, note)
        return
    name = _only(argument, [each.name for each in models], S("model"), chat)
    await host.use_model(name)
    chat.tell(S("From the next request on {name} answers.", name=name))


async def _approvals(chat: "Chat", argument: str) -> None:
    verb, _, rest = argument.partition(" ")
    words = rest.split()
    if not verb:
        await _list_approvals(chat)
    elif verb == "add" and 1 <= len(words) <= 2:
        made = await _host(chat).allow(words[0], words[1] if len(words) == 2 else None)
        names = made.pattern or "*"
        revoke = f"/approvals revoke {made.id}"
        text = S("{tool} on {names} no longer asks. Take it back: {revoke}", tool=made.tool, names=names, revoke=revoke)
        chat.tell(text)
    elif verb == "revoke" and len(words) == 1:
        known = [each.id for each in await _host(chat).approvals()]
        approval = _only(words[0], known, S("approval"), chat)
        await _host(chat).revoke(approval)
        chat.tell(S("Revoked; it asks again."))
    else:
        raise HelmsmanError(S("Use: /approvals, /approvals add TOOL [NAMES], or /approvals revoke ID."))


async def _list_approvals(chat: "Chat") -> None:
    approvals = await _host(chat).approvals()
    if not approvals:
        chat.tell(S("Everything that changes something asks first. /approvals add TOOL [NAMES] allows one tool."))
        return
    rows = [_row(each.id, each.tool, each.pattern or "*") for each in approvals]
    note = chat.look.say(S("/approvals revoke ID takes one back."))
    _table(chat, S("Allowed without asking"), [S("id"), S("tool"), S("names")], rows, note)


async def _history(chat: "Chat", argument: str) -> None:
    host = _host(chat)
    page = await host.cluster.audit(user=host.user, limit=HISTORY)
    if not page.items:
        chat.tell(S("You have changed nothing on this cluster yet."), "muted")
        return
    rows = [_audit_row(entry, chat) for entry in page.items]
    note = chat.look.say(S("Say “undo” to put back the last one, or “undo ID” for another."))
    title = S("Your changes, newest first: {shown} of {total}", shown=len(page.items), total=page.total)
    _table(chat, title, [S("id"), S("when"), S("action"), S("target"), S("result")], rows, note)


def _audit_row(entry: AuditEntry, chat: "Chat") -> list[Cell]:
    if entry.undone_by:
        result = Cell(text=chat.look.say(S("undone")), tone="muted")
    elif entry.result == "refused":
        result = Cell(text=chat.look.say(S("refused")), tone="warn")
    elif entry.result == "failed":
        result = Cell(text=chat.look.say(S("failed")), tone="bad")
    elif entry.inverse is None:
        result = Cell(text=chat.look.say(S("done, can't be undone")))
    else:
        result = Cell(text=chat.look.say(S("done, can be undone")), tone="good")
    return [*_row(entry.id, _local(entry.at), entry.action, ", ".join(entry.targets)), result]


async def _new(chat: "Chat", argument: str) -> None:
    await _switch(chat, None)
    chat.tell(S("A new conversation; /resume has the old ones."), "muted")


async def _resume(chat: "Chat", argument: str) -> None:
    threads = await chat.conversation.threads() if chat.conversation else []
    if not threads:
        chat.tell(S("There are no earlier conversations."), "muted")
        return
    if argument:
        by_number = {str(number): thread.id for number, thread in enumerate(threads, 1)}
        thread = by_number.get(argument) or _only(argument, [each.id for each in threads], S("conversation"), chat)
        await _switch(chat, thread)
        return
    rows = [
        _row(str(number), _local(datetime.fromisoformat(each.updated)), str(each.turns), each.title)
        for number, each in enumerate(threads[:HISTORY], 1)
    ]
    note = chat.look.say(S("Type a number to go on with that one."))
    _table(chat, S("Earlier conversations"), [S("no."), S("last used"), S("turns"), S("begins with")], rows, note)
    chat.picks = [each.id for each in threads]


async def _switch(chat: "Chat", thread: str | None) -> None:
    if chat.running:
        raise HelmsmanError(S("Something is still being done here. Stop it with Ctrl+C, or wait for it."))
    host = _host(chat)
    chat.picks = []
    await chat.attach(Opened(await host.open(thread), host), greet=False)


async def _follow(chat: "Chat", argument: str) -> None:
    if not argument:
        raise HelmsmanError(S("Whose output? Use: /follow SESSION."))
    if chat.follower:
        chat.follower.cancel()
    chat.follow(await _session(argument, chat))


async def _session(word: str, chat: "Chat") -> str:
    """The one session whose name begins with `word`; else `word` itself, for the cluster to find."""
    names = await chat.conversation.names() if chat.conversation else None
    known = set(names.sessions.values()) if names else set()
    fitting = [name for name in known if name.startswith(word)]
    return fitting[0] if word not in known and len(fitting) == 1 else word


async def _quit(chat: "Chat", argument: str) -> None:
    chat.leave()


COMMANDS = {
    command.name: command
    for command in (
        Command("help", "", S("this list"), _help),
        Command("show", "", S("the last result again, all of it"), _show),
        Command("follow", "SESSION", S("a session's output as it comes, until Ctrl+C"), _follow),
        Command("history", "", S("what you changed on this cluster, and how to undo it"), _history),
        Command("approvals", "[add TOOL [NAMES] | revoke ID]", S("what may be done without asking"), _approvals),
        Command("model", "[NAME]", S("which model answers; switch it"), _model),
        Command("new", "", S("begin a new conversation"), _new),
        Command("resume", "[NUMBER]", S("go on with an earlier conversation"), _resume),
        Command("quit", "", S("leave; sessions go on running"), _quit),
    )
}
KEYS = [
    (S("Enter"), S("send")),
    (S("Alt+Enter"), S("new line")),
    (S("Tab"), S("complete a command or a name of the cluster")),
    (S("Up, Ctrl+R"), S("earlier lines; search them")),
    (S("Ctrl+C"), S("stop what is being done, or empty the line")),
    (S("Ctrl+D"), S("leave")),
]


# ── small things ─────────────────────────────────────────────────────────────────────────────────


def _host(chat: "Chat") -> Host:
    if chat.host is None:
        raise HelmsmanError(S("The cluster is still being opened; try again in a moment."))
    return chat.host


def _only(word: str, names: list[str], what: Sentence, chat: "Chat") -> str:
    """The one name that is, or begins with, `word`."""
    fitting = [name for name in names if name == word] or [name for name in names if name.startswith(word)]
    if len(fitting) == 1:
        return fitting[0]
    kind, known = chat.look.say(what), ", ".join(names) or "-"
    if not fitting:
        raise HelmsmanError(S("There is no {kind} {word}. There are: {known}.", kind=kind, word=word, known=known))
    raise HelmsmanError(S("{word} fits several: {known}.", word=word, known=", ".join(fitting)))


def _local(at: datetime) -> str:
    """In this machine's time zone, to the minute."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M")


def _row(*texts: str) -> list[Cell]:
    return [Cell(text=one_line(text)) for text in texts]


def _table(chat: "Chat", title: Sentence, columns: list[Sentence | None], rows: list[list[Cell]], note: str) -> None:
    look = chat.look
    headings = [look.say(column) if column else "" for column in columns]
    chat.screen.show(render(Table(title=look.say(title), columns=headings, rows=rows, note=note), look))
