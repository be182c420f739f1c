"""How a piece of work ended, in words."""

from cluster.agents.record import Spec, Status
from cluster.sentence import S, Sentence
from cluster.units import human_duration, human_size


def detail(status: Status, spec: Spec) -> Sentence | None:
    """What ended it other than itself; None when it ended by itself or still runs."""
    match status.why:
        case "stopped":
            return S("It was stopped.")
        case "time_limit":
            return S("It reached its time limit of {limit}.", limit=human_duration(spec.time_limit or 0))
        case "memory":
            return S(
                "It used more than the {memory} of memory that it holds. Start it with more.",
                memory=human_size(spec.memory),
            )
        case "no_start":
            return S("It could not be started: {why}.", why=status.words)
        case "vanished":
            return S("Its supervisor was killed on the node, so that its end is not known.")
        case _:
            return None
