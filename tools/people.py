"""Who there is: users and projects."""

from typing import Literal

from pydantic import JsonValue

from cluster.models import Project, S, User
from tools.base import Arguments, Context, ReadingTool, Result
from tools.kinds import ProjectName
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
        users = [u for u in everyone if args.project in (None, *u.projects) and _has_role(u, args.role, args.project)]
        count = len(users)
        answer = ctx.say(
            plural(count, S("1 user."), S("{count} users.", count=count)) if users else S("No user fits that.")
        )
        shown = users[:SHOWN]
        rows: list[list[Cell | str]] = [
            [_called(ctx, u), ctx.say(ROLES[_role(u)]), ", ".join(u.projects) or "–", u.email or "–"] for u in shown
        ]
        data: list[JsonValue] = [_data(u) for u in shown]
        return Result(
            status="done",
            data={"total": count, "users": data},
            view=table(ctx, answer, [S("User"), S("Role"), S("Projects"), S("E-mail")], rows, total=count),
            answer=answer,
            rows=[u.name for u in shown],
            rows_of="user",
        )


def _role(u: User) -> Literal["user", "project_admin", "admin"]:
    """The highest that they have anywhere."""
    return "project_admin" if u.role == "user" and u.leads else u.role


def _has_role(u: User, role: str | None, project: str | None) -> bool:
    """Somewhere, or in `project`."""
    if role is None or role == u.role == "admin":
        return True
    leads = u.role == "project_admin" or (bool(u.leads) if project is None else project in u.leads)
    return role == ("admin" if u.role == "admin" else "project_admin" if leads else "user")


def _called(ctx: Context, u: User) -> Cell | str:
    return u.name if u.active else Cell(text=ctx.say(S("{name} (deactivated)", name=u.name)), tone="muted")


def _data(u: User) -> dict[str, JsonValue]:
    data: dict[str, JsonValue] = {"name": u.name, "role": u.role, "projects": [*u.projects]}
    if u.leads:
        data["admin_of"] = [*u.leads]
    return data if u.active else data | {"active": False}


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
        rows: list[list[Cell | str]] = [[p.name, str(len(p.users)), _who(p), p.description or "–"] for p in shown]
        data: list[JsonValue] = [{"name": p.name, "users": [*p.users[:SHOWN]]} for p in shown]
        return Result(
            status="done",
            data={"total": count, "projects": data},
            view=table(
                ctx, answer, [S("Project"), S("Members"), S("Users"), S("About")], rows, total=count, right=(1,)
            ),
            answer=answer,
            rows=[p.name for p in shown],
            rows_of="project",
        )


def _who(p: Project) -> str:
    """The first few, admins of it marked."""
    lead = {member.user for member in p.members if member.role == "project_admin"}
    named = [f"{user}*" if user in lead else user for user in p.users[:8]]
    return ", ".join([*named, "…"] if len(p.users) > 8 else named) or "–"
