"""Folders and what is done with them."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from cluster.models.base import Model

__all__ = ["CreateFolder", "DeleteFolder", "Folder", "RestoreFolder"]


class Folder(Model):
    name: str
    project: str
    owner: str
    size: int = 0
    quota: int | None = None
    trashed: bool = False
    trashed_at: datetime | None = None
    purge_at: datetime | None = None
    created: datetime
    modified: datetime


class CreateFolder(Model):
    op: Literal["create_folder"] = "create_folder"
    name: str = Field(min_length=1, max_length=100)
    project: str | None = None
    quota: int | None = Field(default=None, gt=0)


class DeleteFolder(Model):
    op: Literal["delete_folder"] = "delete_folder"
    folder: str


class RestoreFolder(Model):
    op: Literal["restore_folder"] = "restore_folder"
    folder: str
