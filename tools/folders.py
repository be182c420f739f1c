"""Folders: list, create, move to the trash, bring back."""

from typing import Literal

from pydantic import JsonValue

from cluster.models import CreateFolder, DeleteFolder, Folder, Operation, Outcome, Page, RestoreFolder, S, Sentence
from cluster.units import human_size, parse_size
from tools.base import Arguments, Context, OperationTool, ReadingTool, Result, Risk
from tools.kinds import FolderName, Limit, NewName, ProjectName, Size, TrashedFolderName, UserName
from tools.show import SHOWN, ago, plural, query, table
from tools.views import Cell


class ListFoldersArguments(Arguments):
    project: ProjectName | None = None
    user: UserName | None = None
    sort_by: Literal["name", "size", "modified"] | None = None
    order: Literal["asc", "desc"] | None = None
    limit: Limit | None = None


class ListFolders(ReadingTool[ListFoldersArguments]):
    """List folders (volumes, data sets) with their sizes and owners."""

    name = "list_folders"
    arguments = ListFoldersArguments
    rows_of = "folder"

    async def read(self, ctx: Context, args: ListFoldersArguments) -> Result:
        page = await ctx.client.folders(**query(args))
        shown = page.items[: min(args.limit or SHOWN, 100)]
        answer = ctx.say(_summary(page))
        columns = [S("Folder"), S("Project"), S("Owner"), S("Size"), S("Quota"), S("Changed")]
        rows: list[JsonValue] = [_data(f) for f in shown[:SHOWN]]
        return Result(
            status="done",
            data={"total": page.total, "shown": len(shown), "folders": rows},
            view=table(ctx, answer, columns, [_row(ctx, f) for f in shown], total=page.total, right=(3, 4, 5)),
            answer=answer,
            rows=[f.name for f in shown],
            rows_of="folder",
        )


def _summary(page: Page[Folder]) -> Sentence:
    if not page.items:
        return S("No folder fits that.")
    if len(page.items) < page.total:
        first = page.items[0]
        return S(
            "{count} folders; first is {name} ({size}).", count=page.total, name=first.name, size=human_size(first.size)
        )
    size = human_size(sum(f.size for f in page.items))
    return plural(
        page.total, S("1 folder, {size}.", size=size), S("{count} folders, {size} in all.", count=page.total, size=size)
    )


def _data(f: Folder) -> dict[str, JsonValue]:
    """What is the same for nearly all folders is only told where it is not."""
    found: dict[str, JsonValue] = {"name": f.name, "project": f.project, "owner": f.owner, "size": human_size(f.size)}
    if f.state != "ready":
        found["state"] = f.state
    if f.shared:
        found["shared"] = [f"{g.name} ({g.permission})" for g in f.shared[:10]]
    return found


def _called(ctx: Context, f: Folder) -> Cell | str:
    """Its name, and what is special about it."""
    match f.state:
        case "cloning":
            return Cell(text=ctx.say(S("{name} (being copied)", name=f.name)), tone="warn")
        case "failed":
            return Cell(text=ctx.say(S("{name} (could not be copied)", name=f.name)), tone="bad")
        case _ if f.permission == "read":
            return ctx.say(S("{name} (to read)", name=f.name))
        case _:
            return f.name


def _row(ctx: Context, f: Folder) -> list[Cell | str]:
    full = f.quota is not None and f.size >= 0.9 * f.quota
    size = Cell(text=human_size(f.size), tone="warn" if full else "plain")
    changed = ctx.say(S("{time} ago", time=ago(ctx, f.modified)))
    return [_called(ctx, f), f.project, f.owner, size, human_size(f.quota) if f.quota else "–", changed]


class CreateFolderArguments(Arguments):
    name: NewName
    project: ProjectName | None = None
    quota: Size | None = None


class CreateFolderTool(OperationTool[CreateFolderArguments]):
    """Create a folder that sessions can mount."""

    name = "create_folder"
    risk = Risk.W
    arguments = CreateFolderArguments
    rows_of = "folder"

    def operation(self, ctx: Context, args: CreateFolderArguments) -> Operation:
        quota = parse_size(args.quota) if args.quota else None
        return CreateFolder(name=args.name, project=args.project, quota=quota)

    def title(self, ctx: Context, args: CreateFolderArguments, outcome: Outcome) -> Sentence:
        if args.quota:
            return S(
                "Create the folder {name}, at most {quota}", name=args.name, quota=human_size(parse_size(args.quota))
            )
        return S("Create the folder {name}", name=args.name)

    def done(self, ctx: Context, args: CreateFolderArguments, outcome: Outcome) -> Sentence:
        return S("The folder {name} was created.", name=args.name)


class DeleteFolderArguments(Arguments):
    folder: FolderName


class DeleteFolderTool(OperationTool[DeleteFolderArguments]):
    """Move a folder to the trash, where it is kept for 7 days."""

    name = "delete_folder"
    risk = Risk.D
    arguments = DeleteFolderArguments
    rows_of = "folder"

    def operation(self, ctx: Context, args: DeleteFolderArguments) -> Operation:
        return DeleteFolder(folder=args.folder)

    def title(self, ctx: Context, args: DeleteFolderArguments, outcome: Outcome) -> Sentence:
        return S("Move the folder {name} to the trash", name=args.folder)

    def done(self, ctx: Context, args: DeleteFolderArguments, outcome: Outcome) -> Sentence:
        return S("The folder {name} is in the trash; it is kept for 7 days.", name=args.folder)


class RestoreFolderArguments(Arguments):
    folder: TrashedFolderName


class RestoreFolderTool(OperationTool[RestoreFolderArguments]):
    """Bring a folder back from the trash."""

    name = "restore_folder"
    risk = Risk.W
    arguments = RestoreFolderArguments
    rows_of = "folder"

    def operation(self, ctx: Context, args: RestoreFolderArguments) -> Operation:
        return RestoreFolder(folder=args.folder)

    def title(self, ctx: Context, args: RestoreFolderArguments, outcome: Outcome) -> Sentence:
        return S("Restore the folder {name} from the trash", name=args.folder)

    def done(self, ctx: Context, args: RestoreFolderArguments, outcome: Outcome) -> Sentence:
        return S("The folder {name} is back.", name=args.folder)
