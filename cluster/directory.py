"""Who there is and what they may use, read once and kept: people, projects, groups, quotas, tokens.

They change by the ORM, and rarely; then all of it is read again.
"""

from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from cluster.db.tables import Base, GroupRow, MemberRow, ProjectRow, QuotaRow, TokenRow, UserRow
from cluster.models import User
from cluster.scheduler.state import Group, Limit

KINDS: tuple[type[Base], ...] = (UserRow, MemberRow, ProjectRow, GroupRow, QuotaRow, TokenRow)
"""The tables that it holds."""


@dataclass(frozen=True)
class Directory:
    """What was committed when it was read."""

    users: dict[str, User] = field(default_factory=dict)
    projects: tuple[str, ...] = ()
    cohorts: dict[str, str] = field(default_factory=dict)
    """Project -> its cohort, of those that are in one."""
    groups: dict[str, GroupRow] = field(default_factory=dict)
    """By name, in alphabetical order."""
    quotas: dict[tuple[str, str], QuotaRow] = field(default_factory=dict)
    """By scope (user, project) and name."""
    owners: dict[str, str] = field(default_factory=dict)
    """Of tokens, by digest."""

    @classmethod
    def load(cls, db: Session) -> "Directory":
        """All of it, as this transaction sees it."""
        members: dict[str, list[str]] = {}
        for member in db.scalars(select(MemberRow).order_by(MemberRow.project)):
            members.setdefault(member.user, []).append(member.project)
        users = db.scalars(select(UserRow).order_by(UserRow.name))
        groups = db.scalars(select(GroupRow).order_by(GroupRow.name))
        projects = db.scalars(select(ProjectRow).order_by(ProjectRow.name)).all()
        return cls(
            users={row.name: _user(row, members.get(row.name, [])) for row in users},
            projects=tuple(row.name for row in projects),
            cohorts={row.name: row.cohort for row in projects if row.cohort},
            groups={row.name: row for row in groups},
            quotas={(row.scope, row.name): row for row in db.scalars(select(QuotaRow))},
            owners={row.id: row.owner for row in db.scalars(select(TokenRow))},
        )

    def policies(self) -> dict[str, Group]:
        """The groups as the scheduler has them."""
        return {g.name: Group(g.name, g.policy, g.selector, g.backfill, g.preemption) for g in self.groups.values()}

    def limits(self, scope: str) -> dict[str, Limit]:
        """The quotas of all users, or of all projects, as the scheduler has them."""
        return {name: _limit(row) for (kind, name), row in self.quotas.items() if kind == scope}


def _limit(row: QuotaRow) -> Limit:
    return Limit(**{name: getattr(row, name) for name in Limit.__dataclass_fields__})


def _user(row: UserRow, projects: list[str]) -> User:
    return User.model_validate(
        {"name": row.name, "email": row.email, "role": row.role, "projects": projects, "active": row.active}
    )
