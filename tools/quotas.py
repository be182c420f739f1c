"""Quotas: what users and projects may use, and what they use of it."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import Field, JsonValue

from cluster.models import Operation, Outcome, QuotaUse, S, Sentence, SetQuota
from cluster.units import human_size, parse_size
from tools.base import Arguments, Context, OperationTool, ReadingTool, Result, Risk
from tools.kinds import Amount, ProjectName, Size, UserName
from tools.linking.numbers import number
from tools.show import SHOWN, table
from tools.views import Cell


class GetQuotaArguments(Arguments):
    project: ProjectName | None = None
    user: UserName | None = None


class GetQuota(ReadingTool[GetQuotaArguments]):
    """Show quotas and what is used of them: of a user, of a project, or of the asking person."""

    name = "get_quota"
    arguments = GetQuotaArguments

    async def read(self, ctx: Context, args: GetQuotaArguments) -> Result:
        page = await ctx.client.quotas(user=args.user, project=args.project)
        shown = page.items[:SHOWN]
        answer = " ".join(ctx.say(_sentence(q)) for q in shown[:3]) or ctx.say(
            S("There is no quota: nothing is limited.")
        )
        columns = [S("Of"), S("Kind"), S("GPUs"), S("Cores"), S("Memory"), S("Storage"), S("Sessions")]
        data: list[JsonValue] = [_data(q) for q in shown]
        return Result(
            status="done",
            data={"total": page.total, "quotas": data},
            view=table(
                ctx,
                ctx.say(S("Used of quota")),
                columns,
                [_row(ctx, q) for q in shown],
                total=page.total,
                right=range(2, 7),
            ),
            answer=answer,
        )


def _sentence(q: QuotaUse) -> Sentence:
    used, limit = number(q.used.gpu), q.gpu
    if limit is not None:
        return S("{name} uses {used} of {limit} GPUs.", name=q.name, used=used, limit=number(limit))
    return S("{name} uses {used} GPUs, without a limit.", name=q.name, used=used)


def _row(ctx: Context, q: QuotaUse) -> list[Cell | str]:
    scope = ctx.say(S("user") if q.scope == "user" else S("project"))
    sizes = [_of(q.used.memory, q.memory, human_size), _of(q.used_storage, q.storage, human_size)]
    counts = [_of(q.used.gpu, q.gpu, number), _of(q.used.cpu, q.cpu, number)]
    return [q.name, scope, *counts, *sizes, _of(q.used_sessions, q.sessions, number)]


def _of(used: float, limit: float | None, words: Callable[[float], str]) -> Cell:
    """ "6 / 8", in a warning tone near the limit."""
    if limit is None:
        return Cell(text=words(used), tone="muted")
    return Cell(
        text=f"{words(used)} / {words(limit)}",
        tone="bad" if used >= limit else "warn" if used >= 0.8 * limit else "plain",
    )


def _data(q: QuotaUse) -> dict[str, JsonValue]:
    return {
        "of": q.name, "scope": q.scope, "gpu_used": q.used.gpu, "gpu": q.gpu, "cpu_used": q.used.cpu, "cpu": q.cpu,
        "memory_used": human_size(q.used.memory), "memory": human_size(q.memory) if q.memory else None,
        "storage_used": human_size(q.used_storage), "storage": human_size(q.storage) if q.storage else None,
        "sessions_used": q.used_sessions, "sessions": q.sessions,
    }  # fmt: skip


# ── changing them ────────────────────────────────────────────────────────────────────────────────


class SetQuotaArguments(Arguments):
    project: ProjectName | None = None
    user: UserName | None = None
    gpu: Amount | None = Field(None, description="At most so many devices at a time.")
    cpu: Amount | None = Field(None, description="At most so many cores at a time.")
    memory: Size | None = None
    storage: Size | None = None
    sessions: int | None = Field(None, ge=0, le=1_000_000, description="At most so many at a time.")


class SetQuotaTool(OperationTool[SetQuotaArguments]):
    """Change how much a user or a project may use at a time."""

    name = "set_quota"
    risk = Risk.W
    arguments = SetQuotaArguments

    def wants(self, ctx: Context, given: Mapping[str, Any]) -> str | None:
        """Somebody, and something to limit."""
        if not given.keys() & {"project", "user"}:
            return "user"
        return None if given.keys() & {"gpu", "cpu", "memory", "storage", "sessions"} else "gpu"

    def operation(self, ctx: Context, args: SetQuotaArguments) -> Operation:
        sizes = {name: parse_size(said) for name in ("memory", "storage") if (said := getattr(args, name))}
        return SetQuota.model_validate(args.model_dump(exclude_none=True) | sizes)

    def title(self, ctx: Context, args: SetQuotaArguments, outcome: Outcome) -> Sentence:
        return S("Change the quota of {name}", name=args.project or args.user or ctx.user)

    def done(self, ctx: Context, args: SetQuotaArguments, outcome: Outcome) -> Sentence:
        changed = [effect.message for effect in outcome.effects if effect.kind == "changes"]
        return changed[0] if changed else S("The quota of {name} is changed.", name=args.project or args.user or "")
