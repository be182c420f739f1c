"""The first screen: which cluster, how it stands, three things to say, how to get help."""

from rich.text import Text as Styled

from cluster.models import ClusterStatus
from cluster.sentence import S
from helmsman.render import Look, one_line
from helmsman.terminal.host import Host

WAITING = ("held", "pending", "scheduled", "preparing")

EXAMPLES_HERE = [
    S("run `python train.py` with 2 cores"),
    S("what is running?"),
    S("why is my session waiting?"),
]
EXAMPLES_FLEET = [
    S("which sessions are idle?"),
    S("start a pytorch session with 4 GPUs"),
    S("drain a node for maintenance"),
]


def title(look: Look) -> str:
    """The line that is there at once, before anything is opened."""
    return look.draw(Styled("Helmsman", style="title"))


async def welcome(host: Host, look: Look) -> str:
    """The welcome of this cluster. Raises what its status raises."""
    status = await host.cluster.status()
    warnings = (Styled(f"! {look.say(each)}", style="warn") for each in status.warnings)
    rows = [summary(status, look), counts(status, look), *warnings]
    examples = EXAMPLES_FLEET if sum(status.nodes.values()) > 1 else EXAMPLES_HERE
    say = [Styled(f"  {look.say(each)}", style="accent") for each in examples]
    hint = S("Say it in English or Korean. /help lists what else there is, Ctrl+D leaves.")
    return look.draw(*rows, Styled(""), *say, Styled(""), Styled(look.say(hint), style="muted"))


def summary(status: ClusterStatus, look: Look) -> Styled:
    """ "riverside (simulated)"."""
    line = Styled(one_line(status.name), style="title")
    if status.simulated:
        line.append(f" ({look.say(S('simulated'))})", style="muted")
    return line


def counts(status: ClusterStatus, look: Look) -> Styled:
    """Nodes, what is free, sessions; and what is wrong."""
    nodes = sum(status.nodes.values())
    parts = [look.say(S("{count} node", count=1) if nodes == 1 else S("{count} nodes", count=nodes))]
    parts.append(_free(status, look))
    running = status.sessions.get("running", 0)
    waiting = sum(status.sessions.get(state, 0) for state in WAITING)
    parts.append(look.say(S("{running} sessions run, {waiting} wait", running=running, waiting=waiting)))
    line = Styled(" · ".join(parts))
    if away := nodes - status.nodes.get("alive", 0):
        line.append(" · " + look.say(S("{count} taking no work", count=away)), style="warn")
    return line


def _free(status: ClusterStatus, look: Look) -> str:
    """Of GPUs where there are any, else of cores."""
    free, all_ = status.free, status.capacity
    if all_.gpu:
        return look.say(S("{free} of {all} GPUs free", free=_number(free.gpu), all=_number(all_.gpu)))
    return look.say(S("{free} of {all} cores free", free=_number(free.cpu), all=_number(all_.cpu)))


def _number(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
