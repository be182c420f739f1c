"""What is in a folder, and who else may use it: list files, share, copy, set its quota."""

from typing import Any, Literal

from pydantic import Field, JsonValue

from cluster.models import (
    CloneFolder,
    FileEntry,
    FilePage,
    Operation,
    Outcome,
    S,
    Sentence,
    SetFolderQuota,
    ShareFolder,
    UnshareFolder,
)
from cluster.units import human_size, parse_size
from tools.base import Arguments, Context, OperationTool, ReadingTool, Result, Risk
from tools.kinds import FolderName, NewName, ProjectName, Size, Text, UserName
from tools.show import SHOWN, ago, plural, table
from tools.views import Cell

_KINDS = {"file": S("file"), "folder": S("folder"), "link": S("link"), "other": S("other")}


class ListFilesArguments(Arguments):
    folder: FolderName
    path: Text | None = Field(None, description="A directory inside the folder.")


class ListFiles(ReadingTool[ListFilesArguments]):
    """List the files and directories in a folder, or in a directory inside it."""

    name = "list_files"
    arguments = ListFilesArguments

    async def read(self, ctx: Context, args: ListFilesArguments) -> Result:
        page = await ctx.client.files(args.folder, (args.path or "").strip("/"), limit=100)
        answer = ctx.say(_summary(page, args.folder))
        rows: list[JsonValue] = [
            {"name": f.name, "kind": f.kind, "size": human_size(f.size)} for f in page.items[:SHOWN]
        ]
        columns = [S("Name"), S("Kind"), S("Size"), S("Changed")]
        return Result(
            status="done",
            data={"folder": args.folder, "total": page.total, "shown": len(rows), "files": rows},
            view=table(ctx, answer, columns, [_row(ctx, f) for f in page.items], total=page.total, right=(2, 3)),
            answer=answer,
        )


def _summary(page: FilePage, folder: str) -> Sentence:
    where = f"{folder}/{page.path}" if page.path else folder
    if not page.total:
        return S("{folder} is empty.", folder=where)
    size = human_size(sum(f.size for f in page.items))
    if len(page.items) < page.total:
        return S("{count} entries in {folder}; these are the first of them.", count=page.total, folder=where)
    return plural(
        page.total,
        S("1 entry in {folder}, {size}.", folder=where, size=size),
        S("{count} entries in {folder}, {size} in files.", count=page.total, folder=where, size=size),
    )


def _row(ctx: Context, f: FileEntry) -> list[Cell | str]:
    size = human_size(f.size) if f.kind == "file" else "–"
    changed = ctx.say(S("{time} ago", time=ago(ctx, f.modified))) if f.modified else "–"
    return [f.name, ctx.say(_KINDS[f.kind]), size, changed]


class ShareFolderArguments(Arguments):
    folder: FolderName
    permission: Literal["read", "write"]
    user: UserName | None = None
    project: ProjectName | None = None


class ShareFolderTool(OperationTool[ShareFolderArguments]):
    """Share a folder with a user or a project, to read or to write."""

    name = "share_folder"
    risk = Risk.W
    arguments = ShareFolderArguments
    rows_of = "folder"

    def wants(self, ctx: Context, given: Any) -> str | None:
        return None if given.get("user") or given.get("project") else "user"

    def operation(self, ctx: Context, args: ShareFolderArguments) -> Operation:
        return ShareFolder(folder=args.folder, permission=args.permission, user=args.user, project=args.project)

    def title(self, ctx: Context, args: ShareFolderArguments, outcome: Outcome) -> Sentence:
        other = args.user or args.project or ""
        if args.permission == "write":
            return S("Share the folder {name} with {other}, to read and write", name=args.folder, other=other)
        return S("Share the folder {name} with {other}, to read", name=args.folder, other=other)

    def done(self, ctx: Context, args: ShareFolderArguments, outcome: Outcome) -> Sentence:
        return S("The folder {name} is shared with {other}.", name=args.folder, other=args.user or args.project or "")


class UnshareFolderArguments(Arguments):
    folder: FolderName
    user: UserName | None = None
    project: ProjectName | None = None


class UnshareFolderTool(OperationTool[UnshareFolderArguments]):
    """Stop sharing a folder with a user or a project, or with everybody when neither is named."""

    name = "unshare_folder"
    risk = Risk.W
    arguments = UnshareFolderArguments
    rows_of = "folder"

    def operation(self, ctx: Context, args: UnshareFolderArguments) -> Operation:
        return UnshareFolder(folder=args.folder, user=args.user, project=args.project)

    def title(self, ctx: Context, args: UnshareFolderArguments, outcome: Outcome) -> Sentence:
        if other := args.user or args.project:
            return S("Stop sharing the folder {name} with {other}", name=args.folder, other=other)
        return S("Stop sharing the folder {name}", name=args.folder)

    def done(self, ctx: Context, args: UnshareFolderArguments, outcome: Outcome) -> Sentence:
        if other := args.user or args.project:
            return S("The folder {name} is no longer shared with {other}.", name=args.folder, other=other)
        return S("The folder {name} is no longer shared.", name=args.folder)


class CloneFolderArguments(Arguments):
    folder: FolderName
    name: NewName


class CloneFolderTool(OperationTool[CloneFolderArguments]):
    """Copy a folder under a new name."""

    name = "clone_folder"
    risk = Risk.W
    arguments = CloneFolderArguments
    rows_of = "folder"

    def operation(self, ctx: Context, args: CloneFolderArguments) -> Operation:
        return CloneFolder(folder=args.folder, name=args.name)

    def title(self, ctx: Context, args: CloneFolderArguments, outcome: Outcome) -> Sentence:
        return S("Copy the folder {source} to {name}", source=args.folder, name=args.name)

    def done(self, ctx: Context, args: CloneFolderArguments, outcome: Outcome) -> Sentence:
        return S("The folder {source} is being copied to {name}.", source=args.folder, name=args.name)


class SetFolderQuotaArguments(Arguments):
    folder: FolderName
    quota: Size


class SetFolderQuotaTool(OperationTool[SetFolderQuotaArguments]):
    """Set how much a folder may hold."""

    name = "set_folder_quota"
    risk = Risk.W
    arguments = SetFolderQuotaArguments
    rows_of = "folder"

    def operation(self, ctx: Context, args: SetFolderQuotaArguments) -> Operation:
        return SetFolderQuota(folder=args.folder, quota=parse_size(args.quota))

    def title(self, ctx: Context, args: SetFolderQuotaArguments, outcome: Outcome) -> Sentence:
        quota = human_size(parse_size(args.quota))
        return S("Let the folder {name} hold at most {quota}", name=args.folder, quota=quota)

    def done(self, ctx: Context, args: SetFolderQuotaArguments, outcome: Outcome) -> Sentence:
        quota = human_size(parse_size(args.quota))
        return S("The folder {name} may hold {quota} now.", name=args.folder, quota=quota)
