"""What is changed of sessions that are there: their priority, and that they begin again."""

from pydantic import Field

from cluster.models import Operation, Outcome, RestartSession, S, Sentence, SetSessionPriority
from tools.base import Arguments, Context, OperationTool, Risk
from tools.kinds import LiveSessionName, SessionName


class RestartSessionArguments(Arguments):
    session: SessionName


class RestartSessionTool(OperationTool[RestartSessionArguments]):
    """Restart a session: stop it and begin again with the same definition. One that has ended is started anew."""

    name = "restart_session"
    risk = Risk.D
    arguments = RestartSessionArguments
    rows_of = "session"

    def operation(self, ctx: Context, args: RestartSessionArguments) -> Operation:
        return RestartSession(session=args.session)

    def title(self, ctx: Context, args: RestartSessionArguments, outcome: Outcome) -> Sentence:
        return S("Restart {name}", name=args.session)

    def done(self, ctx: Context, args: RestartSessionArguments, outcome: Outcome) -> Sentence:
        if outcome.session is not None:
            return S("{name} was started again as a new session.", name=outcome.session.name)
        return S("{name} is being stopped, and starts again.", name=args.session)


class SetSessionPriorityArguments(Arguments):
    session: LiveSessionName
    priority: int = Field(ge=0, le=100, description="Higher goes first; 10 is usual.")


class SetSessionPriorityTool(OperationTool[SetSessionPriorityArguments]):
    """Change the priority of a session that waits or runs: who goes first, and who gives way."""

    name = "set_session_priority"
    risk = Risk.W
    arguments = SetSessionPriorityArguments
    rows_of = "session"

    def operation(self, ctx: Context, args: SetSessionPriorityArguments) -> Operation:
        return SetSessionPriority(session=args.session, priority=args.priority)

    def title(self, ctx: Context, args: SetSessionPriorityArguments, outcome: Outcome) -> Sentence:
        return S("Give {name} priority {priority}", name=args.session, priority=args.priority)

    def done(self, ctx: Context, args: SetSessionPriorityArguments, outcome: Outcome) -> Sentence:
        return S("{name} has priority {priority} now.", name=args.session, priority=args.priority)
