"""Users, projects and what they may use."""

from collections.abc import Callable
from typing import Literal

from pydantic import JsonValue

from cluster.models import QuotaUse, S, Sentence
from cluster.units import human_size
from tools.base import Arguments, Context, ReadingTool, Result
from tools.kinds import ProjectName, UserName
from tools.linking.numbers import number
from tools.show import SHOWN, plural, table
from tools.views import Cell

ROLES = {"user": S("user"), "project_admin": S("project admin"), "admin": S("admin")}


class ListUsersArguments(Arguments):
    project: ProjectName | None = None
    role: Literal["user", "project_admin", "admin"] | None = None


class ListUsers(ReadingTool[ListUsersArguments]):
    """List the people who use the cluster."""

    name = "list_users"
    arguments = ListUsersArguments
    rows_of = "user"

    async def read(self, ctx: Context, args: ListUsersArguments) -> Result:
        everyone = (await ctx.client.users()).items
        users = [u for u in everyone if args.project in (None, *u.projects) and args.role in (None, u.role)]
        count = len(users)
        answer = ctx.say(
            plural(count, S("1 user."), S("{count} users.", count=count)) if users else S("No user fits that.")
        )
        shown = users[:SHOWN]
        rows: list[list[Cell | str]] = [
            [u.name, ctx.say(ROLES[u.role]), ", ".join(u.projects) or "–", u.email or "–"] for u in shown
        ]
        data: list[JsonValue] = [{"name": u.name, "role": u.role, "projects": [*u.projects]} for u in shown]
        return Result(
            status="done",
            data={"total": count, "users": data},
            view=table(ctx, answer, [S("User"), S("Role"), S("Projects"), S("E-mail")], rows, total=count),
            answer=answer,
            rows=[u.name for u in shown],
            rows_of="user",
        )


class ListProjectsArguments(Arguments):
    pass


class ListProjects(ReadingTool[ListProjectsArguments]):
    """List projects (groups, teams) and their members."""

    name = "list_projects"
    arguments = ListProjectsArguments
    rows_of = "project"

    async def read(self, ctx: Context, args: ListProjectsArguments) -> Result:
        page = await ctx.client.projects()
        shown = page.items[:SHOWN]
        count = page.total
        answer = ctx.say(
            plural(count, S("1 project."), S("{count} projects.", count=count))
            if count
            else S("There are no projects.")
        )
        rows: list[list[Cell | str]] = [[p.name, str(len(p.users)), ", ".join(p.users[:8]) or "–"] for p in shown]
        data: list[JsonValue] = [{"name": p.name, "users": [*p.users[:SHOWN]]} for p in shown]
        return Result(
            status="done",
            data={"total": count, "projects": data},
            view=table(ctx, answer, [S("Project"), S("Members"), S("Users")], rows, total=count, right=(1,)),
            answer=answer,
            rows=[p.name for p in shown],
            rows_of="project",
        )


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
