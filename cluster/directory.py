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
    projects: dict[str, ProjectRow] = field(default_factory=dict)
    """By name, in alphabetical order."""
    cohorts: dict[str, str] = field(default_factory=dict)
    """Project -> its cohort, of those that are in one."""
    groups: dict[str, GroupRow] = field(default_factory=dict)
    """By name, in alphabetical order."""
    quotas: dict[tuple[str, str], QuotaRow] = field(default_factory=dict)
    """By scope (user, project) and name."""
    tokens: dict[str, TokenRow] = field(default_factory=dict)
    """By their public half."""
    subjects: dict[str, str] = field(default_factory=dict)
    """Who somebody at the OIDC provider is here."""

    @classmethod
    def load(cls, db: Session) -> "Directory":
        """All of it, as this transaction sees it."""
        members: dict[str, list[MemberRow]] = {}
        for member in db.scalars(select(MemberRow).order_by(MemberRow.project)):
            members.setdefault(member.user, []).append(member)
        users = db.scalars(select(UserRow).order_by(UserRow.name)).all()
        groups = db.scalars(select(GroupRow).order_by(GroupRow.name))
        projects = {row.name: row for row in db.scalars(select(ProjectRow).order_by(ProjectRow.name))}
        return cls(
            users={row.name: _user(row, members.get(row.name, [])) for row in users},
            projects=projects,
            cohorts={row.name: row.cohort for row in projects.values() if row.cohort},
            groups={row.name: row for row in groups},
            quotas={(row.scope, row.name): row for row in db.scalars(select(QuotaRow))},
            tokens={row.id: row for row in db.scalars(select(TokenRow))},
            subjects={row.subject: row.name for row in users if row.subject},
        )

    def policies(self) -> dict[str, Group]:
        """The groups as the scheduler has them."""
        return {g.name: Group(g.name, g.policy, g.selector, g.backfill, g.preemption) for g in self.groups.values()}

    def limits(self, scope: str) -> dict[str, Limit]:
        """The quotas of all users, or of all projects, as the scheduler has them."""
        return {name: _limit(row) for (kind, name), row in self.quotas.items() if kind == scope}


def _limit(row: QuotaRow) -> Limit:
    return Limit(**{name: getattr(row, name) for name in Limit.__dataclass_fields__})


def _user(row: UserRow, members: list[MemberRow]) -> User:
    """Whoever has the role project_admin is it in all their projects."""
    every = row.role == "project_admin"
    return User.model_validate(
        {
            "name": row.name,
            "email": row.email,
            "full_name": row.full_name,
            "role": row.role,
            "projects": [m.project for m in members],
            "leads": [m.project for m in members if every or m.role == "project_admin"],
            "active": row.active,
        }
    )
