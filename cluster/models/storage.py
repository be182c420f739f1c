"""Folders, the files in them, and what is done with them."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from cluster.models.base import Model, Reason

__all__ = [
    "CloneFolder",
    "CreateFolder",
    "DeleteFile",
    "DeleteFolder",
    "FileEntry",
    "FilePage",
    "Folder",
    "FolderGrant",
    "RestoreFolder",
    "SetFolderQuota",
    "ShareFolder",
    "UnshareFolder",
    "UploadFile",
]


class FolderGrant(Model):
    """Whom a folder is shared with, and what they may do."""

    scope: Literal["user", "project"]
    name: str
    permission: Literal["read", "write"]


class Folder(Model):
    name: str
    project: str
    owner: str
    size: int = 0
    """Bytes of its files when they were last counted."""
    quota: int | None = None
    state: Literal["ready", "cloning", "failed"] = "ready"
    """cloning: it is being filled and cannot be used yet; failed: it could not be, for `reasons`."""
    reasons: list[Reason] = []
    permission: Literal["read", "write"] = "write"
    """What the asking person may do with its files."""
    shared: list[FolderGrant] = []
    trashed: bool = False
    trashed_at: datetime | None = None
    purge_at: datetime | None = None
    created: datetime
    modified: datetime


class FileEntry(Model):
    """One name in a folder. `size` is that of a file, else 0."""

    name: str
    kind: Literal["file", "folder", "link", "other"]
    size: int = 0
    modified: datetime | None = None


class FilePage(Model):
    """Some of a directory's names, from `offset` of them on in the order asked for; `total` is how many there are."""

    folder: str
    path: str
    """Inside the folder; empty for its top."""
    items: list[FileEntry]
    offset: int = 0
    total: int
    complete: bool = True
    """False: there are so many names that not all were looked at, and `total` is too small."""


class CreateFolder(Model):
    op: Literal["create_folder"] = "create_folder"
    name: str = Field(min_length=1, max_length=100)
    project: str | None = None
    quota: int | None = Field(default=None, gt=0, lt=2**63)


class DeleteFolder(Model):
    op: Literal["delete_folder"] = "delete_folder"
    folder: str


class DeleteFile(Model):
    """A file in a folder, or with `recursive` a directory with all that is in it. For good: it can't be undone."""

    op: Literal["delete_file"] = "delete_file"
    folder: str
    path: str = Field(min_length=1, max_length=4096)
    recursive: bool = False


class RestoreFolder(Model):
    op: Literal["restore_folder"] = "restore_folder"
    folder: str


class ShareFolder(Model):
    """With one user, or with everybody in a project. Shared already: the permission is changed."""

    op: Literal["share_folder"] = "share_folder"
    folder: str
    permission: Literal["read", "write"]
    user: str | None = None
    project: str | None = None


class UnshareFolder(Model):
    """With neither user nor project: everything that it is shared with."""

    op: Literal["unshare_folder"] = "unshare_folder"
    folder: str
    user: str | None = None
    project: str | None = None


class CloneFolder(Model):
    """A copy named `name` in the same project, or in the person's own where they are not in that one."""

    op: Literal["clone_folder"] = "clone_folder"
    folder: str
    name: str = Field(min_length=1, max_length=100)
    project: str | None = None


class SetFolderQuota(Model):
    """`quota` in bytes; None for no limit."""

    op: Literal["set_folder_quota"] = "set_folder_quota"
    folder: str
    quota: int | None = Field(gt=0, lt=2**63)


class UploadFile(Model):
    """In the journal only: uploads come by tus (`/v1/uploads`), not by POST /v1/operations. `size` in bytes."""

    op: Literal["upload_file"] = "upload_file"
    folder: str
    path: str
    size: int
