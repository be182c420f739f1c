"""What is wrong, found by checks, with what would help: words to type. Nothing is done by itself."""

from collections.abc import Callable, Mapping

from pydantic import JsonValue

from cluster.models import Diagnosis, Finding, Proposal, S, Sentence
from tools.base import Arguments, Context, ReadingTool, Result
from tools.kinds import TargetName
from tools.show import plural, told
from tools.views import Cell, Facts, Tone

_TONES: dict[str, Tone] = {"error": "bad", "warning": "warn", "info": "muted"}
_LOOKED: dict[str, tuple[Sentence, Sentence]] = {
    "nodes": (S("1 node"), S("{count} nodes")),
    "sessions": (S("1 session"), S("{count} sessions")),
    "logs": (S("1 log"), S("{count} logs")),
    "endpoints": (S("1 endpoint"), S("{count} endpoints")),
    "runs": (S("1 pipeline run"), S("{count} pipeline runs")),
    "folders": (S("1 folder"), S("{count} folders")),
}


class DiagnoseArguments(Arguments):
    target: TargetName | None = None


class Diagnose(ReadingTool[DiagnoseArguments]):
    """Find out what is wrong with a session, a node or an endpoint, or with the whole cluster, and what would help."""

    name = "diagnose"
    arguments = DiagnoseArguments

    async def read(self, ctx: Context, args: DiagnoseArguments) -> Result:
        return await diagnosed(ctx, args.target)


async def diagnosed(ctx: Context, target: str | None) -> Result:
    """What is wrong with it; with everything when there is none."""
    found = await ctx.client.diagnosis(target)
    answer = _answer(ctx, found)
    lines = [line for group in _grouped(found.findings) for line in _lines(ctx, group, found.target is None)]
    lines.append(("", Cell(text=_looked_at(ctx, found), tone="muted")))
    view = Facts(title=answer, facts=lines)
    data: dict[str, JsonValue] = {
        "target": found.target,
        "summary": answer,
        "total": found.total,
        "counts": {**found.counts},
        "findings": [_data(ctx, f) for f in found.findings],
    }
    return Result(status="done", data=data, view=view, answer=answer)


def _answer(ctx: Context, found: Diagnosis) -> str:
    """The clauses as one sentence."""
    said = [told(ctx, clause).rstrip(".") for clause in found.summary]
    joined = "; ".join(said)
    return f"{joined[:1].upper()}{joined[1:]}." if not found.target else f"{joined}."


def _grouped(findings: list[Finding]) -> list[list[Finding]]:
    """Those of the same thing together, where the worst of them stands."""
    groups: dict[tuple[str, str, str | None], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.kind, finding.target, finding.owner), []).append(finding)
    return [*groups.values()]


def _lines(ctx: Context, group: list[Finding], brief: bool) -> list[tuple[str, Cell]]:
    """What was found of one thing, what it follows from, and what would help; said once where it helps with several."""
    lines, calls = [], []
    for f in group:
        lines.append(Cell(text=told(ctx, f.message), tone=_TONES[f.severity]))
        if f.quote:
            lines.append(Cell(text=f"“{f.quote.text}”", tone="muted"))
        if f.advice and not brief:
            lines.append(Cell(text=told(ctx, f.advice)))
        if f.proposal:
            calls.append(words(ctx, f.proposal))
    lines += [Cell(text=call, tone="good") for call in dict.fromkeys(calls)]
    labels = [group[0].target, *[""] * (len(lines) - 1)]
    return list(zip(labels, lines, strict=True))


def _looked_at(ctx: Context, found: Diagnosis) -> str:
    parts = [
        ctx.say(plural(count, one, S(many.text, count=count)))
        for kind, (one, many) in _LOOKED.items()
        if (count := found.looked_at.get(kind))
    ]
    said = [ctx.say(S("Looked at: {things}.", things=", ".join(parts)))]
    if left := found.total - len(found.findings):
        said.insert(0, ctx.say(S("{count} more, none of them worse.", count=left)))
    if found.not_seen:
        said.append(ctx.say(S("{count} sessions of others were not looked at.", count=found.not_seen)))
    return " ".join(said)


def _data(ctx: Context, f: Finding) -> JsonValue:
    """For the model; what was printed by somebody's program is marked as such."""
    data: dict[str, JsonValue] = {
        "code": f.code,
        "severity": f.severity,
        "target": f.target,
        "what": told(ctx, f.message),
        "advice": told(ctx, f.advice) if f.advice else None,
        "quoted_output": f.quote.text if f.quote else None,
        "proposal": _call(f.proposal) if f.proposal else None,
    }
    return {key: value for key, value in data.items() if value is not None}


def _call(proposal: Proposal) -> JsonValue:
    """A session's environment stays out: it may hold secrets, and is long."""
    arguments = {key: value for key, value in proposal.arguments.items() if key != "env"}
    return {"tool": proposal.tool, "arguments": arguments}


# ── a proposal as words that a person can type ───────────────────────────────────────────────────

_WORDS: Mapping[str, Sentence] = {
    "terminate_sessions": S("→ terminate {sessions}"),
    "get_session_logs": S("→ show the log of {session}"),
    "explain_pending": S("→ why is {session} waiting?"),
    "cordon_node": S("→ cordon {node}"),
    "uncordon_node": S("→ uncordon {node}"),
    "get_node": S("→ show node {node}"),
    "list_nodes": S("→ list the nodes"),
    "list_events": S("→ show the events of {target}"),
    "list_folders": S("→ list the folders by size"),
    "set_folder_quota": S("→ set the quota of folder {folder} to {quota}"),
    "delete_folder": S("→ delete folder {folder}"),
    "get_endpoint": S("→ show endpoint {endpoint}"),
    "resume_pipeline_run": S("→ resume pipeline run {run}"),
    "set_scheduling_policy": S("→ set the selector of {resource_group} to {selector}"),
}


def words(ctx: Context, proposal: Proposal) -> str:
    """ "→ terminate bob-notebook"."""
    given = {key: _text(value) for key, value in proposal.arguments.items()}
    special = _SPECIAL.get(proposal.tool)
    sentence = special(given) if special else _WORDS.get(proposal.tool)
    if sentence is None:
        return f"→ {proposal.tool} {' '.join(f'{key}={value}' for key, value in given.items())}".rstrip()
    return ctx.say(S(sentence.text, **(sentence.params or given)))


def _text(value: JsonValue) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _again(given: dict[str, str]) -> Sentence:
    amounts = [f"{given['gpu']} {given.get('gpu_model', '')} GPU".replace("  ", " ")] if "gpu" in given else []
    amounts += [given[key] for key in ("memory", "time_limit") if key in given]
    return S("→ start {name} again ({amounts})", name=given.get("name", "?"), amounts=", ".join(amounts))


def _quota(given: dict[str, str]) -> Sentence:
    if "project" in given:
        return S("→ set the GPU quota of project {name} to {gpu}", name=given["project"], gpu=given["gpu"])
    return S("→ set the GPU quota of {name} to {gpu}", name=given["user"], gpu=given["gpu"])


def _used(given: dict[str, str]) -> Sentence:
    return S("→ show the quota of {name}", name=given.get("project") or given.get("user", ""))


_SPECIAL: Mapping[str, Callable[[dict[str, str]], Sentence]] = {
    "start_session": _again,
    "set_quota": _quota,
    "get_quota": _used,
}
