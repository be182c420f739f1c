"""Making users and projects, and saying who is in them."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from cluster.models import (
    AddProjectMember,
    CreateProject,
    CreateUser,
    DeactivateUser,
    Operation,
    Outcome,
    RemoveProjectMember,
    S,
    Sentence,
)
from cluster.units import parse_size
from tools.base import Arguments, Context, OperationTool, Risk
from tools.kinds import Amount, Kind, NewName, ProjectName, Size, UserName

Role = Literal["user", "project_admin", "admin"]
Email = Annotated[str, Kind("text"), Field(min_length=3, max_length=254)]


def first(outcome: Outcome, otherwise: Sentence) -> Sentence:
    """The first of what it did, in its own words."""
    return outcome.effects[0].message if outcome.effects else otherwise


class CreateProjectArguments(Arguments):
    name: NewName
    gpu: Amount | None = Field(None, description="At most so many devices at a time.")
    cpu: Amount | None = Field(None, description="At most so many cores at a time.")
    memory: Size | None = None
    storage: Size | None = None


class CreateProjectTool(OperationTool[CreateProjectArguments]):
    """Create a project (group, team), with a quota if one is said."""

    name = "create_project"
    risk = Risk.W
    arguments = CreateProjectArguments
    rows_of = "project"

    def operation(self, ctx: Context, args: CreateProjectArguments) -> Operation:
        return CreateProject(
            name=args.name,
            gpu=args.gpu,
            cpu=args.cpu,
            memory=parse_size(args.memory) if args.memory else None,
            storage=parse_size(args.storage) if args.storage else None,
        )

    def title(self, ctx: Context, args: CreateProjectArguments, outcome: Outcome) -> Sentence:
        return S("Create the project {project}", project=args.name)

    def done(self, ctx: Context, args: CreateProjectArguments, outcome: Outcome) -> Sentence:
        return first(outcome, S("The project {project} was created.", project=args.name))


class CreateUserArguments(Arguments):
    name: NewName
    email: Email | None = None
    role: Role | None = None
    project: ProjectName | None = None


class CreateUserTool(OperationTool[CreateUserArguments]):
    """Create a user (account), and put them into a project if one is said."""

    name = "create_user"
    risk = Risk.W
    arguments = CreateUserArguments
    rows_of = "user"

    def operation(self, ctx: Context, args: CreateUserArguments) -> Operation:
        return CreateUser(name=args.name, email=args.email, role=args.role or "user", project=args.project)

    def title(self, ctx: Context, args: CreateUserArguments, outcome: Outcome) -> Sentence:
        return S("Create the user {user}", user=args.name)

    def done(self, ctx: Context, args: CreateUserArguments, outcome: Outcome) -> Sentence:
        return first(outcome, S("The user {user} was created.", user=args.name))


class DeactivateUserArguments(Arguments):
    user: UserName


class DeactivateUserTool(OperationTool[DeactivateUserArguments]):
    """Deactivate a user: they can't log in any more, and their sessions are stopped."""

    name = "deactivate_user"
    risk = Risk.D
    arguments = DeactivateUserArguments
    rows_of = "user"

    def operation(self, ctx: Context, args: DeactivateUserArguments) -> Operation:
        return DeactivateUser(user=args.user)

    def title(self, ctx: Context, args: DeactivateUserArguments, outcome: Outcome) -> Sentence:
        count = len(stopped(outcome))
        if count:
            return S("Deactivate the user {user}, and stop {count} of their sessions", user=args.user, count=count)
        return S("Deactivate the user {user}", user=args.user)

    def done(self, ctx: Context, args: DeactivateUserArguments, outcome: Outcome) -> Sentence:
        return first(outcome, S("{user} is deactivated.", user=args.user))


class AddProjectMemberArguments(Arguments):
    project: ProjectName
    user: UserName
    role: Role | None = Field(None, description="In the project; an admin of it is a project_admin.")


class AddProjectMemberTool(OperationTool[AddProjectMemberArguments]):
    """Put a user into a project, or give a member of it another role there."""

    name = "add_project_member"
    risk = Risk.W
    arguments = AddProjectMemberArguments
    rows_of = "project"

    def operation(self, ctx: Context, args: AddProjectMemberArguments) -> Operation:
        return AddProjectMember(project=args.project, user=args.user, role=args.role)

    def title(self, ctx: Context, args: AddProjectMemberArguments, outcome: Outcome) -> Sentence:
        if args.role in ("project_admin", "admin"):
            return S("Make {user} an admin of project {project}", user=args.user, project=args.project)
        return S("Put {user} into project {project}", user=args.user, project=args.project)

    def done(self, ctx: Context, args: AddProjectMemberArguments, outcome: Outcome) -> Sentence:
        return first(outcome, S("{user} is in project {project}.", user=args.user, project=args.project))


class RemoveProjectMemberArguments(Arguments):
    project: ProjectName
    user: UserName


class RemoveProjectMemberTool(OperationTool[RemoveProjectMemberArguments]):
    """Take a user out of a project; their sessions in it are stopped."""

    name = "remove_project_member"
    risk = Risk.D
    arguments = RemoveProjectMemberArguments
    rows_of = "project"

    def operation(self, ctx: Context, args: RemoveProjectMemberArguments) -> Operation:
        return RemoveProjectMember(project=args.project, user=args.user)

    def title(self, ctx: Context, args: RemoveProjectMemberArguments, outcome: Outcome) -> Sentence:
        said = {"user": args.user, "project": args.project}
        count = len(stopped(outcome))
        if count:
            return S("Take {user} out of project {project}, and stop {count} of their sessions", count=count, **said)
        return S("Take {user} out of project {project}", **said)

    def done(self, ctx: Context, args: RemoveProjectMemberArguments, outcome: Outcome) -> Sentence:
        return first(outcome, S("{user} is not in {project} any more.", user=args.user, project=args.project))


def stopped(outcome: Outcome) -> Sequence[str]:
    """Names of the sessions that it ends."""
    return [effect.target for effect in outcome.effects if effect.kind == "stops"]
