"""Whom and which projects somebody knows of. Whoever else exists is as unknown as one who does not."""

from collections.abc import Collection

from cluster import access
from cluster.directory import Directory
from cluster.errors import NotFound
from cluster.models import User
from cluster.sentence import S
from cluster.transaction import nearest


def users_seen(directory: Directory, asking: User) -> list[str]:
    """Names of the users that `asking` may see."""
    return [user.name for user in directory.users.values() if access.sees_user(asking, user.name, user.projects)]


def projects_seen(directory: Directory, asking: User) -> list[str]:
    """Names of the projects that `asking` may see."""
    return [project for project in directory.projects if access.sees_project(asking, project)]


def no_user(name: str, seen: Collection[str]) -> NotFound:
    return NotFound(S("There is no user {name}.", name=name), nearest(name, seen))


def no_project(name: str, seen: Collection[str]) -> NotFound:
    """There is none, or none that the person is in: the same words, so that nobody learns which."""
    return NotFound(S("There is no project {name} that you are in.", name=name), nearest(name, seen))
