"""Checks of sessions that run or have ended: what their output and their end say, what they hold without using it."""

from collections.abc import Callable, Iterable, Iterator

from pydantic import JsonValue

from cluster.diagnosis import logs
from cluster.diagnosis.rest import larger, nearly_full
from cluster.diagnosis.seen import HOUR, Seen, Severity, finding, look, span
from cluster.models import Device, Finding, Proposal, Quote, Sentence, Session, SessionResult, SessionState, SessionType
from cluster.sentence import S

SETTLED = 0.5 * HOUR
"""So long a session runs before not using its GPUs is said of it."""
NEAR = 60.0
"""Seconds before its time limit from which on it is taken to have been ended by it."""
AT_WORK = (SessionType.INTERACTIVE, SessionType.BATCH)
"""An endpoint's replica may be idle: it waits for requests."""


def told(seen: Seen) -> Iterator[Finding]:
    """What the output of one that failed says; or, of one that runs, that it can't go well any more."""
    for session in seen.sessions:
        text = seen.logs.get(session.id, "")
        running = session.state is SessionState.RUNNING
        if not (running or failed(session)):
            continue
        if running and (quote := logs.not_a_number(text)):
            yield _of(
                session,
                "loss_nan",
                "error",
                logs.NAN,
                advice=logs.NAN_ADVICE,
                quote=quote,
                proposal=stop(seen, session),
            )
        elif found := logs.why(text, running=running, idle=session.idle):
            cause = found.cause
            yield _of(
                session,
                cause.code,
                "error",
                cause.message,
                advice=cause.advice,
                quote=found.quote,
                proposal=_help(seen, session, cause.code),
            )


def ended(seen: Seen) -> Iterator[Finding]:
    """One that failed and whose output does not say why: by its exit code, its time limit, its nodes."""
    for session in seen.sessions:
        if session.ended is None:
            continue
        if session.result is SessionResult.LOST:
            message = S("{name} was lost together with its node.", name=session.name)
            why = session.reasons[0].message if session.reasons else None
            yield _of(session, "session_lost", "error", message, advice=why, proposal=_again(seen, session))
        elif failed(session) and _limited(session):
            message = S(
                "{name} was ended by its time limit of {time}.", name=session.name, time=span(session.time_limit or 0)
            )
            advice = S("Give it more time, or have it save its state and go on from there.")
            call = _again(seen, session, time_limit=f"{round(2 * (session.time_limit or 0) / 60)}m")
            yield _of(session, "time_limit", "error", message, advice=advice, proposal=call)
        elif session.state is SessionState.CANCELLED and any(r.code == "dependency" for r in session.reasons):
            yield _of(
                session, "dependency_failed", "warning", session.reasons[0].message, proposal=_again(seen, session)
            )
        elif failed(session) and not logs.why(seen.logs.get(session.id, ""), running=False):
            yield _by_exit(seen, session)


def failed(session: Session) -> bool:
    return session.result is SessionResult.FAILURE or session.state is SessionState.ERROR


def _limited(session: Session) -> bool:
    """It ran as long as it was allowed to, and was stopped."""
    if session.time_limit is None or session.started is None or session.ended is None:
        return False
    ran = (session.ended - session.started).total_seconds()
    return ran >= session.time_limit - min(NEAR, session.time_limit / 10) and session.exit_code in (None, 124, 137, 143)


_EXITS: dict[int, tuple[str, Sentence, Sentence]] = {
    126: (
        "not_executable",
        S("{name} ended with exit code 126: its command can't be executed."),
        S("Check that the file may be executed and is a program."),
    ),
    127: (
        "command_missing",
        S("{name} ended with exit code 127: its command is not there."),
        S("Check the command's name, and that the image has it."),
    ),
    134: (
        "aborted",
        S("{name} ended with exit code 134: its program gave up (SIGABRT)."),
        S("Its last lines of output usually say why."),
    ),
    137: (
        "killed",
        S("{name} was killed (exit code 137); most often it used more memory than it had asked for."),
        S("Ask for more memory, or load less at a time (fewer data workers, smaller shards)."),
    ),
    139: (
        "segfault",
        S("{name} ended with exit code 139: a fault in compiled code (SIGSEGV)."),
        S("Often versions that do not fit together, such as of CUDA and PyTorch: try another image."),
    ),
    143: (
        "stopped",
        S("{name} was told to stop (exit code 143) before it was done."),
        S("The events say who or what stopped it."),
    ),
}


def _by_exit(seen: Seen, session: Session) -> Finding:
    code = session.exit_code
    quote = _last_line(seen.logs.get(session.id, ""))
    if code in _EXITS:
        name, message, advice = _EXITS[code]
        call = _more_memory(seen, session) if name == "killed" else None
        return _of(session, name, "error", message, advice=advice, quote=quote, proposal=call or _log(seen, session))
    if session.reasons:
        return _of(session, "failed", "error", session.reasons[0].message, quote=quote, proposal=_log(seen, session))
    if code is None:
        return _of(session, "failed", "error", S("{name} failed."), quote=quote, proposal=_log(seen, session))
    message = S("{name} ended with exit code {code}; its output does not say why.", name=session.name, code=code)
    return _of(session, "failed", "error", message, quote=quote, proposal=_log(seen, session))


def _last_line(text: str) -> Quote | None:
    last = next((line for raw in reversed(text.splitlines()) if (line := logs.clean(raw))), None)
    return Quote(text=last, back=0) if last else None


def idle(seen: Seen) -> Iterator[Finding]:
    """Holds GPUs and uses next to nothing of them."""
    for session in seen.sessions:
        age = seen.age(session.started)
        if not session.idle or not session.resources.gpu or session.type not in AT_WORK or age < SETTLED:
            continue
        message = S(
            "{name} uses {percent} % of its {gpu} GPU; {owner} has had it running for {time}.",
            name=session.name,
            percent=round(100 * (session.gpu_utilization or 0)),
            gpu=session.resources.gpu,
            owner=session.user,
            time=span(age),
        )
        found = _of(session, "idle_gpu", "warning", message, proposal=stop(seen, session))
        found.evidence |= {"utilization": session.gpu_utilization or 0.0, "running_seconds": round(age)}
        yield found


# ── what would help ──────────────────────────────────────────────────────────────────────────────


def _help(seen: Seen, session: Session, cause: str) -> Proposal:
    """The call that does something about it; else the one that shows more."""
    if session.ended is None and cause != "gpu_error":
        return stop(seen, session)
    ways: dict[str, Callable[[Seen, Session], Proposal | None]] = {
        "gpu_error": _out_of_service,
        "cuda_oom": _larger_gpu,
        "out_of_memory": _more_memory,
        "no_space": _room,
    }
    way = ways.get(cause)
    return (way(seen, session) if way else None) or _log(seen, session)


def _log(seen: Seen, session: Session) -> Proposal:
    return look("get_session_logs", session=seen.ref(session))


def stop(seen: Seen, session: Session) -> Proposal:
    return Proposal(tool="terminate_sessions", arguments={"sessions": [seen.ref(session)]})


def _out_of_service(seen: Seen, session: Session) -> Proposal | None:
    """Its node, where it is known and is one only."""
    nodes = {a.node for a in session.allocations}
    if len(nodes) != 1 or not seen.admin:
        return None
    return look("cordon_node", node=nodes.pop(), reason=f"GPU error in {session.name}")


def _more_memory(seen: Seen, session: Session) -> Proposal | None:
    """The same with twice the memory."""
    return _again(seen, session, memory=_size(2 * session.resources.memory))


def _larger_gpu(seen: Seen, session: Session) -> Proposal | None:
    """The same on the smallest GPU that has more memory than the one that was asked for, if there is one."""
    devices = [device for node in seen.nodes for device in node.devices]
    had = max((d.memory for d in _of_model(devices, session.gpu_model)), default=0)
    larger = sorted({(d.memory, d.model) for d in devices if d.memory > had > 0})
    return _again(seen, session, gpu_model=larger[0][1]) if larger and session.gpu_model else None


def _of_model(devices: Iterable[Device], model: str | None) -> Iterator[Device]:
    return (device for device in devices if device.model == model)


def _room(seen: Seen, session: Session) -> Proposal | None:
    """A larger quota for the fullest folder that it writes to."""
    mounted = [f for f in seen.folders if f.quota and f"{f.project}/{f.name}" in session.mounts]
    fullest = max(mounted, key=lambda f: f.size / (f.quota or 1), default=None)
    return larger(seen, fullest) if fullest and nearly_full(fullest) else None


def _again(seen: Seen, session: Session, **changed: JsonValue) -> Proposal | None:
    """The same session once more, with what is to be different. Only for one's own: it would be the asking person's."""
    if session.user != seen.user:
        return _log(seen, session)
    given: dict[str, JsonValue] = {
        "name": session.name,
        "type": session.type.value,
        "image": session.image,
        "command": session.command,
        "cpu": session.resources.cpu,
        "memory": _size(session.resources.memory),
        "gpu": session.resources.gpu or None,
        "gpu_model": session.gpu_model,
        "node_count": session.node_count if session.node_count > 1 else None,
        "resource_group": session.resource_group,
        "project": session.project,
        "mounts": [*session.mounts] or None,
        "env": {**session.env} or None,
        "time_limit": f"{round(session.time_limit / 60)}m" if session.time_limit else None,
    }
    kept = {name: value for name, value in (given | changed).items() if value is not None}
    return Proposal(tool="start_session", arguments=kept)


def _size(amount: int) -> str:
    """As a tool reads it: "256g"."""
    return f"{amount // 2**30}g" if amount and amount % 2**30 == 0 else f"{-(-amount // 2**20)}m"


def _of(
    session: Session,
    code: str,
    severity: Severity,
    message: Sentence,
    *,
    advice: Sentence | None = None,
    quote: Quote | None = None,
    proposal: Proposal | None = None,
) -> Finding:
    evidence: dict[str, str | int | float] = {"gpu": session.resources.gpu, "session": session.id}
    if session.exit_code is not None:
        evidence["exit_code"] = session.exit_code
    if session.ended is not None:
        evidence["ended"] = session.ended.isoformat(timespec="seconds")
    named = message.model_copy(update={"params": {"name": session.name, **message.params}})
    return finding(session, code, severity, named, evidence, advice=advice, quote=quote, proposal=proposal)
