"""Which of the nodes that fit a session gets: each selector is a score over nodes, the lowest wins, ties go by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points

import numpy as np

from cluster.errors import Invalid
from cluster.scheduler import fragmentation
from cluster.scheduler.fleet import UNIT, Floats, Ints, Need, matches_model
from cluster.scheduler.room import Room
from cluster.sentence import S

PLUGINS = "helmsman.selectors"
"""Entry points of this group are selectors too: a `Selector`, or a `Score`, under the name that people give."""

WATTS = {"h200": 700, "h100": 700, "a100": 400, "v100": 300, "l40s": 350, "l40": 300, "l4": 72, "a10": 150, "t4": 70}
"""Board power of common GPUs in W, for `least_power`; others count as 300."""


@dataclass(slots=True)
class Mood:
    """What a selector may look at besides the nodes: the mix of needs in the group, and whose turn it is."""

    mix: "fragmentation.Mix" = field(default_factory=lambda: fragmentation.USUAL)
    last: int = -1
    """Number of the node that got the latest session, for `round_robin`."""


Score = Callable[[Room, Need, Ints, Mood], Floats]
"""(room, need, numbers of nodes that fit, mood) -> their scores. A node's score may depend on that node, the need and
the mood's mix only, so that it can be kept until the node changes."""


@dataclass(frozen=True, slots=True)
class Selector:
    name: str
    score: Score
    device: Callable[[Room, int, Need, Mood], tuple[int, ...]] | None = None
    """Which devices of the node a rank gets; the fullest that takes a share when left out."""
    moody: bool = False
    """Its score looks at the mood's mix."""
    rotates: bool = False
    """Only whether a node fits counts, and who was last."""


def _free(room: Room, need: Need, nodes: Ints) -> Floats:
    """The free part of what the session mostly asks: GPUs where it asks any, else cores."""
    free: Floats
    if need.share:
        free = room.total[nodes] / (UNIT * np.maximum(room.fleet.count[nodes], 1))
    else:
        free = room.cpu[nodes] / np.maximum(room.fleet.cpu[nodes], 1)
    return free


def concentrated(room: Room, need: Need, nodes: Ints, mood: Mood) -> Floats:
    """The fullest node first, so that others stay empty."""
    return _free(room, need, nodes)


def dispersed(room: Room, need: Need, nodes: Ints, mood: Mood) -> Floats:
    """The emptiest node first, so that one failure hurts few."""
    return -_free(room, need, nodes)


def round_robin(room: Room, need: Need, nodes: Ints, mood: Mood) -> Floats:
    """The next node after the one that got the latest session (`Selector.rotates`)."""
    return np.zeros(len(nodes))


def least_fragmentation(room: Room, need: Need, nodes: Ints, mood: Mood) -> Floats:
    """Where the fewest GPUs become useless for the usual requests; the fullest node among equals."""
    return fragmentation.score(room, need, nodes, mood.mix)


def least_power(room: Room, need: Need, nodes: Ints, mood: Mood) -> Floats:
    """The fewest added watts: frugal GPUs, and no waking of an idle node while an awake one has room."""
    fleet = room.fleet
    models = fleet.model[nodes]
    watts = np.zeros(len(nodes))
    for model in np.unique(models):
        watts[models == model] = _watts(fleet.nodes[nodes[models == model][0]].gpu_model)
    idle = (room.cpu[nodes] >= fleet.cpu[nodes]) & (room.whole[nodes] == fleet.count[nodes])
    added: Floats = need.gpu * watts + need.cpu * 5 + np.where(idle, fleet.power[nodes], 0.0)
    return added


@cache
def _watts(model: str | None) -> float:
    return next((watts for name, watts in WATTS.items() if model and matches_model(name, model)), 300)


def coolest(room: Room, need: Need, nodes: Ints, mood: Mood) -> Floats:
    """The lowest temperature first; each rank placed in this pass counts as 5 °C; unknown ones last."""
    return room.fleet.temperature[nodes] + 5.0 * room.placed[nodes]


SELECTORS: dict[str, Selector] = {
    "concentrated": Selector("concentrated", concentrated),
    "dispersed": Selector("dispersed", dispersed),
    "round_robin": Selector("round_robin", round_robin, rotates=True),
    "least_fragmentation": Selector("least_fragmentation", least_fragmentation, fragmentation.device, moody=True),
    "least_power": Selector("least_power", least_power),
    "coolest": Selector("coolest", coolest),
}
"""Those that come with Helmsman."""


@cache
def known() -> Mapping[str, Selector]:
    """All selectors by name, plugins included. One with the name of a built-in does not replace it."""
    found: dict[str, Selector] = {}
    for entry in entry_points(group=PLUGINS):
        loaded = entry.load()
        found[entry.name] = loaded if isinstance(loaded, Selector) else Selector(entry.name, loaded)
    return found | SELECTORS


def selector(name: str) -> Selector:
    """The selector called `name`; `Invalid` with the names there are when there is none."""
    there = known()
    if name not in there:
        names = ", ".join(there)
        raise Invalid(S("There is no selector {name}; there are {known}.", name=name, known=names), [*there])
    return there[name]
