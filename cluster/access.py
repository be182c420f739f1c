"""Who may see and do what, in one place. The API asks here, whoever sends the call.

Two steps: which relations a person has to a thing (owner, member, leader of its project, admin …), here; and what a
relation may do with a kind of thing, in `tenancy/policy.csv` (casbin; the table is in `tenancy/README.md`).
"""

from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import casbin

from cluster.errors import NotAllowed
from cluster.models import User
from cluster.sentence import S

RELATIONS = ("anyone", "member", "owner", "leader", "reader", "writer", "admin")
Permission = Literal["read", "write"]
_POLICY = Path(__file__).parent / "tenancy"


class Who(NamedTuple):
    """Which relations may do one action with one kind of thing."""

    anyone: bool
    member: bool
    owner: bool
    leader: bool
    reader: bool
    writer: bool
    admin: bool


@cache
def enforcer() -> casbin.Enforcer:
    """The policy, read once."""
    return casbin.Enforcer(str(_POLICY / "model.conf"), str(_POLICY / "policy.csv"))


@cache
def who_may(action: str, kind: str) -> Who:
    """The policy's answer. `ValueError` for an action that it says nothing of: a slip of the programmer's."""
    answers = Who(*(bool(enforcer().enforce(relation, kind, action)) for relation in RELATIONS))
    if not any(answers):
        raise ValueError(f"the policy says nothing of {action} {kind}")
    return answers


def may(
    user: User, action: str, kind: str, owner: str | None, project: str | None, permission: Permission | None = None
) -> bool:
    """May `user` do it with a thing of that kind, which is `owner`'s and in `project`?

    `permission` is what a grant gives them of a folder.
    """
    who = who_may(action, kind)
    return (
        who.anyone
        or (who.owner and owner == user.name)
        or (who.member and project in user.projects)
        or (who.admin and user.role == "admin")
        or (who.leader and project in user.leads)
        or (permission is not None and (who.writer if permission == "write" else who.reader))
    )


# ── sessions, folders, and whatever else belongs to a person and a project ───────────────────────


def is_admin(user: User) -> bool:
    return user.role == "admin"


def sees(user: User, owner: str, project: str) -> bool:
    """One's own, one's projects', and for an admin everything."""
    return may(user, "see", "work", owner, project)


def seer(user: User) -> Callable[[str, str], bool]:
    """`sees` of one person, as a function of owner and project: for lists, where the policy is asked once for all.

    The same policy put the other way round: whose things, and which projects', instead of whether this one.
    """
    who = who_may("see", "work")
    if who.anyone or (who.admin and user.role == "admin"):
        return lambda owner, project: True
    mine = frozenset([user.name] if who.owner else [])
    theirs = frozenset([*(user.projects if who.member else ()), *(user.leads if who.leader else ())])
    return lambda owner, project: owner in mine or project in theirs


def owns(user: User, owner: str, project: str) -> bool:
    """May stop or delete it: the owner, the project's admin, an admin."""
    return may(user, "change", "work", owner, project)


def must_own(user: User, what: str, owner: str, project: str) -> None:
    if not owns(user, owner, project):
        raise NotAllowed(
            S(
                "{what} is {owner}'s; only {owner}, an admin of {project} or an admin may do this.",
                what=what,
                owner=owner,
                project=project,
            )
        )


def favours(user: User, owner: str, project: str) -> bool:
    """May let it go before other people's work: the project's admin, an admin. Its owner may not."""
    return may(user, "favour", "work", owner, project)


def sees_folder(user: User, owner: str, project: str, permission: Permission | None = None) -> bool:
    """`permission`: what grants to the person or their projects give them, the strongest; None without any."""
    return may(user, "see", "folder", owner, project, permission)


def writes_folder(user: User, owner: str, project: str, permission: Permission | None = None) -> bool:
    """May change what is in it, and mount it to write."""
    return may(user, "write", "folder", owner, project, permission)


# ── projects and people ──────────────────────────────────────────────────────────────────────────


def is_in(user: User, project: str) -> bool:
    """May use the project: start sessions, make folders."""
    return may(user, "use", "project", None, project)


def sees_project(user: User, project: str) -> bool:
    """That it exists, who is in it, and what of its quota is used."""
    return may(user, "see", "project", None, project)


def leads(user: User, project: str) -> bool:
    """May say who is in the project."""
    return may(user, "lead", "project", None, project)


def must_lead(user: User, project: str) -> None:
    if not leads(user, project):
        raise NotAllowed(S("Only an admin of project {project} or an admin may do this.", project=project))


def sees_user(user: User, name: str, projects: Collection[str]) -> bool:
    """Somebody in `projects`: oneself, whoever shares a project, for an admin everybody. Whoever leads a project may
    put anybody into it, and so sees everybody's name."""
    return bool(user.leads) or _may_of_person(user, "see", name, projects)


def sees_usage(user: User, name: str, projects: Collection[str]) -> bool:
    """What somebody in `projects` uses of their quota."""
    return _may_of_person(user, "usage", name, projects)


def _may_of_person(user: User, action: str, name: str, projects: Collection[str]) -> bool:
    return any(may(user, action, "user", name, project) for project in [*projects, None])


# ── the rest ─────────────────────────────────────────────────────────────────────────────────────


def must_be_admin(user: User) -> None:
    if not may(user, "change", "cluster", None, None):
        raise NotAllowed(S("Only an admin may do this; you are {user} ({role}).", user=user.name, role=user.role))


def must_may(user: User, action: str, kind: str) -> None:
    """Of things that are nobody's: the cluster, a new user. Raises `NotAllowed`."""
    if not may(user, action, kind, None, None):
        must_be_admin(user)


def may_undo(user: User, name: str) -> bool:
    """What `name` has done."""
    return may(user, "undo", "journal", name, None)


def has_token_rights(user: User, owner: str) -> bool:
    """May make, list and revoke tokens of `owner`'s ("" for the agents')."""
    return may(user, "manage", "token", owner, None)
