"""Users, projects, quotas and images."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from cluster.models.base import Model, Resources

__all__ = [
    "AddProjectMember",
    "CreateProject",
    "CreateToken",
    "CreateUser",
    "DeactivateUser",
    "Image",
    "LinkUser",
    "Member",
    "NewToken",
    "Project",
    "QuotaUse",
    "ReactivateUser",
    "RegisterImage",
    "RemoveProjectMember",
    "RevokeToken",
    "Role",
    "SetQuota",
    "Token",
    "TokenMade",
    "User",
]

Role = Literal["user", "project_admin", "admin"]
Said = Annotated[str, Field(min_length=1, max_length=200)]
"""A name as somebody says it; checked by the operation."""
Cores = Annotated[float, Field(ge=0, le=1e9)]
Devices = Annotated[float, Field(ge=0, le=1e7)]
Bytes = Annotated[int, Field(ge=0, le=2**60)]
Number = Annotated[int, Field(ge=0, le=10**9)]


class QuotaUse(Model):
    """A quota and what is used of it now, derived from allocations. A limit of None means no limit."""

    scope: Literal["user", "project"]
    name: str
    cpu: float | None = None
    memory: int | None = None
    gpu: float | None = None
    storage: int | None = None
    sessions: int | None = None
    borrow_cpu: float | None = None
    """How much more than the limit may be borrowed of what the project's cohort leaves idle; None is no limit."""
    borrow_memory: int | None = None
    borrow_gpu: float | None = None
    used: Resources
    used_storage: int = 0
    used_sessions: int = 0


class User(Model):
    """Somebody, and where they belong, as far as the asking person may see it."""

    name: str
    email: str | None = None
    full_name: str | None = None
    role: Role = "user"
    projects: list[str] = []
    leads: list[str] = []
    """The projects that they are an admin of."""
    active: bool = True


class Member(Model):
    """Somebody in a project."""

    user: str
    role: Literal["user", "project_admin"] = "user"


class Project(Model):
    name: str
    description: str | None = None
    cohort: str | None = None
    """Projects of one cohort lend each other what their quotas leave idle."""
    users: list[str] = []
    members: list[Member] = []


class Image(Model):
    name: str
    registry: str | None = None
    """Where it is fetched from; None: where its name says."""


class Token(Model):
    """An API token, without what makes it one."""

    id: str
    user: str
    """Whose it is; empty for the agents'."""
    name: str = ""
    created: datetime | None = None
    expires: datetime | None = None


class TokenMade(Token):
    """Shown once, at its making; the cluster keeps its hash only."""

    token: str


class NewToken(Model):
    """Body of POST /v1/tokens."""

    user: str | None = Field(default=None, max_length=200)
    """Whose; one's own when left out. An admin may make anybody's, and with an empty one the agents'."""
    name: str = Field(default="", max_length=100)
    days: float | None = Field(default=None, gt=0, le=3650)
    """After which it ends; None: never."""


class CreateToken(NewToken):
    """Done by POST /v1/tokens, which shows the token."""

    op: Literal["create_token"] = "create_token"


class RevokeToken(Model):
    op: Literal["revoke_token"] = "revoke_token"
    token: str = Field(min_length=1, max_length=100)
    """Its id: the part between the two underscores."""


# ── operations ───────────────────────────────────────────────────────────────────────────────────


class CreateProject(Model):
    """With its quota, as far as one is given."""

    op: Literal["create_project"] = "create_project"
    name: Said
    description: str | None = Field(default=None, max_length=500)
    cohort: Said | None = None
    cpu: Cores | None = None
    memory: Bytes | None = None
    gpu: Devices | None = None
    storage: Bytes | None = None


class CreateUser(Model):
    op: Literal["create_user"] = "create_user"
    name: Said
    email: str | None = Field(default=None, max_length=254)
    full_name: str | None = Field(default=None, max_length=200)
    role: Role = "user"
    """project_admin: of all projects that they are in."""
    project: Said | None = None


class DeactivateUser(Model):
    op: Literal["deactivate_user"] = "deactivate_user"
    user: Said


class ReactivateUser(Model):
    op: Literal["reactivate_user"] = "reactivate_user"
    user: Said


class LinkUser(Model):
    """Who somebody is at the OpenID Connect provider; `subject` None: nobody, so that they log in by token only."""

    op: Literal["link_user"] = "link_user"
    user: Said
    subject: str | None = Field(max_length=500, pattern=r"^https?://\S+ \S(.*\S)?$")
    """The provider's issuer, a space, and its subject of the person."""


class AddProjectMember(Model):
    """Somebody who is in it already gets the role that is given."""

    op: Literal["add_project_member"] = "add_project_member"
    project: Said
    user: Said
    role: Role | None = None
    """user when left out; an admin of a project is a project_admin, whichever of the two words is said."""


class RemoveProjectMember(Model):
    op: Literal["remove_project_member"] = "remove_project_member"
    project: Said
    user: Said


class SetQuota(Model):
    """Of a user or of a project, not both. What is left out stays as it is; what is in `unlimited` has no limit."""

    op: Literal["set_quota"] = "set_quota"
    project: Said | None = None
    user: Said | None = None
    cpu: Cores | None = None
    memory: Bytes | None = None
    gpu: Devices | None = None
    storage: Bytes | None = None
    sessions: Number | None = None
    borrow_cpu: Cores | None = None
    borrow_memory: Bytes | None = None
    borrow_gpu: Devices | None = None
    cohort: str | None = Field(default=None, max_length=100)
    """Of a project; an empty one takes it out of its cohort."""
    unlimited: list[
        Literal["cpu", "memory", "gpu", "storage", "sessions", "borrow_cpu", "borrow_memory", "borrow_gpu"]
    ] = []


class RegisterImage(Model):
    op: Literal["register_image"] = "register_image"
    image: str = Field(min_length=1, max_length=300)
    registry: str | None = Field(default=None, max_length=300)
