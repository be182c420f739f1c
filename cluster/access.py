"""Who may see and do what, in one place. The API asks here, whoever sends the call."""

from cluster.errors import NotAllowed
from cluster.models import User
from cluster.sentence import S


def is_admin(user: User) -> bool:
    return user.role == "admin"


def sees(user: User, owner: str, project: str) -> bool:
    """One's own, one's projects', and for an admin everything."""
    return is_admin(user) or owner == user.name or project in user.projects


def owns(user: User, owner: str, project: str) -> bool:
    """May stop or delete it: the owner, the project's admin, an admin."""
    leads = user.role == "project_admin" and project in user.projects
    return is_admin(user) or owner == user.name or leads


def must_be_admin(user: User) -> None:
    if not is_admin(user):
        raise NotAllowed(S("Only an admin may do this; you are {user} ({role}).", user=user.name, role=user.role))


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


def must_be_in(user: User, project: str) -> None:
    if not is_admin(user) and project not in user.projects:
        raise NotAllowed(S("You are not in project {project}.", project=project))
