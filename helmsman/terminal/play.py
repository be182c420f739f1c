"""A small play on the scripted conversation, to look at the screen: `python -m helmsman.terminal.play`.

Its lines: sessions, start, stop, which, slow, long, log, fail, and anything else is echoed.
"""

import asyncio
import os
from datetime import timedelta
from pathlib import Path

from cluster.models import AuditEntry, ClusterStatus, CordonNode, Names, Resources
from helmsman.conversation import ThreadInfo
from helmsman.events import Answered, Asked, CallEnded, CallStarted, Decided, PlannedCall, PlanShown, Words, Working
from helmsman.terminal.app import Options, chat
from helmsman.terminal.host import Opened
from helmsman.terminal.scripted import WHEN, ScriptedCluster, ScriptedConversation, ScriptedHost
from tools.views import Cell, Plan, PlanLine, Table, Text, View

NAMES = Names(
    sessions={"s-7f3a": "resnet-sweep", "s-91bc": "vit-large", "s-02de": "비전-실험"},
    nodes=["a100-01", "a100-02", "cpu-01"],
    users=["alice", "minho"],
    folders=["imagenet"],
)
ROWS = [
    ("resnet-sweep", "alice", "running", "good", "4", "256 GiB", "a100-02", "3 h"),
    ("vit-large", "bob", "pending", "warn", "16", "1 TiB", "", "40 min"),
    ("비전-실험", "minho", "running", "good", "0.5", "8 GiB", "a100-01", "12 min"),
]


async def play(stage: ScriptedConversation, text: str) -> None:
    """One turn."""
    await stage.emit(Working(label="thinking"))
    await stage.pause(0.2)
    act = ACTS.get(text.split()[0].lower())
    if act:
        await act(stage, text)
    else:
        await say(stage, f"You said: {text}")


async def say(stage: ScriptedConversation, text: str, pause: float = 0.03) -> None:
    """Word by word, then the whole."""
    for word in text.split(" "):
        await stage.emit(Words(delta=word + " "))
        await stage.pause(pause)
    await stage.emit(Answered(text=text))


async def result(stage: ScriptedConversation, tool: str, view: View, **arguments: str) -> None:
    await stage.emit(CallStarted(id=tool, tool=tool, risk="R", arguments=arguments))
    await stage.emit(CallEnded(id=tool, tool=tool, status="done", view=view))


async def _sessions(stage: ScriptedConversation, text: str) -> None:
    await stage.emit(Working(label="looking at sessions"))
    await stage.pause(0.3)
    rows = [
        [Cell(text=c) for c in (n, u)] + [Cell(text=s, tone=t)] + [Cell(text=c) for c in rest]
        for n, u, s, t, *rest in ROWS
    ]
    columns = ["name", "user", "state", "GPU", "memory", "node", "since"]
    table = Table(
        title="3 sessions", columns=columns, align=["left"] * 3 + ["right"] * 2 + ["left", "right"], rows=rows
    )
    await result(stage, "list_sessions", table)
    await stage.emit(Answered(text="2 sessions run, 1 waits; the longest has waited 40 min."))


async def _start(stage: ScriptedConversation, text: str) -> None:
    effects = [
        PlanLine(text="bert-tune starts now on a100-01 with 2 cores and 4 GiB", tone="good"),
        PlanLine(text="Of your quota 6 GPUs and 30 cores are left"),
    ]
    plan = Plan(title="Start bert-tune: 2 cores, 4 GiB", risk="W", effects=effects, undo="stop bert-tune")
    arguments = {"command": "python train.py", "cpu": 2, "memory": "4g", "mounts": ["imagenet"], "env": {"A": "1"}}
    await _ask_and_do(stage, "start_session", plan, arguments, "bert-tune started on a100-01.")


async def _stop(stage: ScriptedConversation, text: str) -> None:
    effects = [
        PlanLine(text="resnet-sweep on a100-02 is stopped; it has run for 3 h", tone="bad", owner="alice"),
        PlanLine(text="vit-large starts, since 4 GPUs become free", tone="good", owner="bob"),
    ]
    warnings = ["3 h of work since the last checkpoint are lost."]
    plan = Plan(title="Stop resnet-sweep", risk="D", effects=effects, warnings=warnings, type_word="resnet-sweep")
    await _ask_and_do(stage, "terminate_sessions", plan, {"sessions": ["resnet-sweep"]}, "resnet-sweep was stopped.")


async def _ask_and_do(
    stage: ScriptedConversation, tool: str, plan: Plan, arguments: dict[str, object], done: str
) -> None:
    call = PlannedCall(id="c-1", tool=tool, risk=plan.risk, arguments=arguments, plan=plan)
    decided = await stage.ask(PlanShown(question="q-1", digest=f"d-{plan.title}", calls=[call]))
    if isinstance(decided, Decided) and decided.decision == "edit":
        changed = (stage.edited or {}).get("c-1", arguments)
        title = f"Start bert-tune: {changed.get('cpu', 1)} cores, {changed.get('memory', '?')}"
        await _ask_and_do(stage, tool, plan.model_copy(update={"title": title}), changed, done)
        return
    if isinstance(decided, Decided) and decided.decision == "yes":
        await stage.emit(Working(label="doing it"))
        await stage.pause(0.3)
        view = Text(text=done, tone="good")
        await stage.emit(CallEnded(id="c-1", tool=tool, status="done", view=view, audit_id="a-1"))
        await stage.emit(Answered(text=done))
        return
    await stage.emit(Answered(text="Nothing was done."))


async def _which(stage: ScriptedConversation, text: str) -> None:
    question = Asked(question="q-2", text="Which node: a100-01 or a100-02?", choices=["a100-01", "a100-02"])
    reply = await stage.ask(question)
    await say(stage, f"Then {reply}.")


async def _slow(stage: ScriptedConversation, text: str) -> None:
    stage.done = ["a100-02 takes no new sessions."]
    view = Text(text="a100-02 takes no new sessions.", tone="good")
    await stage.emit(CallEnded(id="c-1", tool="cordon_node", status="done", view=view, audit_id="a-2"))
    await stage.emit(Working(label="draining a100-02"))
    await asyncio.sleep(60)


async def _long(stage: ScriptedConversation, text: str) -> None:
    rows = [[Cell(text=f"session-{n:03}"), Cell(text=str(n))] for n in range(1, 101)]
    await result(
        stage, "list_sessions", Table(title="100 sessions", columns=["name", "GPU"], align=["left", "right"], rows=rows)
    )


async def _log(stage: ScriptedConversation, text: str) -> None:
    log = "epoch 1 loss 2.31\nepoch 2 loss 1.97\n\x1b]0;you are hacked\x07\x1b[31mCUDA out of memory\x1b[0m\n"
    view = Text(title="resnet-sweep, last 3 lines", text=log, code=True)
    await result(stage, "get_session_logs", view, session="resnet-sweep")


async def _fail(stage: ScriptedConversation, text: str) -> None:
    raise ZeroDivisionError("the script has a mistake")


ACTS = {
    "sessions": _sessions,
    "start": _start,
    "stop": _stop,
    "which": _which,
    "slow": _slow,
    "long": _long,
    "log": _log,
    "follow": _log,
    "fail": _fail,
}


def stage(thread: str | None = None) -> ScriptedConversation:
    """A new conversation of the play."""
    past = [
        ThreadInfo("t-1", "sessions", "2026-03-01T10:00:00+09:00", 3),
        ThreadInfo("t-2", "내 작업", "2026-02-28T09:00:00+09:00", 1),
    ]
    return ScriptedConversation(play, thread=thread or "t-9", known=NAMES, past=past)


def host() -> ScriptedHost:
    """The play's cluster."""
    state = ClusterStatus(
        name="riverside",
        now=WHEN,
        simulated=True,
        nodes={"alive": 19, "cordoned": 1},
        sessions={"running": 32, "pending": 5, "held": 1},
        capacity=Resources(cpu=2048, memory=2**44, gpu=128),
        free=Resources(cpu=812, memory=2**42, gpu=37.5),
    )
    entry = AuditEntry(
        id="a-17",
        at=WHEN - timedelta(hours=2),
        user="minho",
        action="cordon_node",
        operation=CordonNode(node="cpu-01"),
        targets=["cpu-01"],
        inverse={"op": "uncordon_node", "node": "cpu-01"},
    )
    cluster = ScriptedCluster(state, [entry], {"resnet-sweep": b"epoch 1 loss 2.31\nepoch 2 loss 1.97\n"})
    return ScriptedHost(cluster, stage)


async def opener() -> Opened:
    """Takes a moment, as the real one does."""
    await asyncio.sleep(float(os.environ.get("PLAY_OPENING", "0.5")))
    conversation = stage()
    conversation.pace = float(os.environ.get("PLAY_PACE", "1"))
    return Opened(conversation, host())


if __name__ == "__main__":
    path = os.environ.get("PLAY_HISTORY")
    raise SystemExit(asyncio.run(chat(opener, Options(history=Path(path) if path else None))))
