"""Users, projects, quotas and images."""

from typing import Literal

from cluster.models.base import Model, Resources

__all__ = ["Image", "Project", "QuotaUse", "User"]


class QuotaUse(Model):
    """A quota and what is used of it now, derived from allocations. A limit of None means no limit."""

    scope: Literal["user", "project"]
    name: str
    cpu: float | None = None
    memory: int | None = None
    gpu: float | None = None
    storage: int | None = None
    sessions: int | None = None
    used: Resources
    used_storage: int = 0
    used_sessions: int = 0


class User(Model):
    name: str
    email: str | None = None
    role: Literal["user", "project_admin", "admin"] = "user"
    projects: list[str] = []
    active: bool = True


class Project(Model):
    name: str
    users: list[str] = []


class Image(Model):
    name: str
