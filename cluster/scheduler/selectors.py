"""Which of the nodes that fit a session gets: each selector is a score, the lowest wins, ties go by name."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import nsmallest

from cluster.errors import Invalid
from cluster.scheduler.fleet import EPSILON, Need, Room, free_whole, matches_model
from cluster.scheduler.state import Placement
from cluster.sentence import S

WATTS = {"h200": 700, "h100": 700, "a100": 400, "v100": 300, "l40s": 350, "l40": 300, "l4": 72, "a10": 150, "t4": 70}
"""Board power of common GPUs in W, for `least_power`; others count as 300."""

USUAL_MIX = {0.5: 1, 1.0: 4, 2.0: 2, 4.0: 2, 8.0: 1}
"""GPUs per node and how often, where nothing pending tells."""


@dataclass(slots=True)
class Mood:
    """What a selector may look at besides the node: the mix of requests and whose turn it is."""

    mix: dict[float, int] = field(default_factory=lambda: dict(USUAL_MIX))
    last: int = -1
    """Number of the node that got the latest session, for `round_robin`."""


Score = Callable[[Room, int, Need, Mood], float]


def _free(room: Room, i: int, need: Need) -> float:
    """The free share of what the session mostly asks: GPUs where it asks any, else cores."""
    node = room.fleet.nodes[i]
    if need.gpu > EPSILON and node.devices:
        return sum(room.devices[i]) / len(node.devices)
    return room.cpu[i] / node.cpu if node.cpu else 0.0


def concentrated(room: Room, i: int, need: Need, mood: Mood) -> float:
    """The fullest node first, so that others stay empty."""
    return _free(room, i, need)


def dispersed(room: Room, i: int, need: Need, mood: Mood) -> float:
    """The emptiest node first, so that one failure hurts few."""
    return -_free(room, i, need)


def round_robin(room: Room, i: int, need: Need, mood: Mood) -> float:
    """The next node after the one that got the latest session."""
    return (i - mood.last - 1) % len(room.fleet.nodes)


def least_fragmentation(room: Room, i: int, need: Need, mood: Mood) -> float:
    """Where the fewest GPUs become useless for the usual requests (as FGD does); the fullest node among equals."""
    before = room.devices[i]
    after = before[:]
    for device, share in room.placement(i, need).devices.items():
        after[device] -= share
    return _stranded(after, mood.mix) - _stranded(before, mood.mix) + 1e-3 * _free(room, i, need)


def _stranded(devices: list[float], mix: dict[float, int]) -> float:
    """Expected free GPU share that a request drawn from `mix` could not use."""
    whole, total = free_whole(devices), sum(devices)
    lost = 0.0
    for gpus, weight in mix.items():
        lost += weight * (total - _usable(devices, whole, gpus))
    return lost / sum(mix.values())


def _usable(devices: list[float], whole: int, gpus: float) -> float:
    if gpus >= 1:
        return float(whole) if whole >= gpus else 0.0
    return sum(share for share in devices if share >= gpus - EPSILON)


def least_power(room: Room, i: int, need: Need, mood: Mood) -> float:
    """The fewest added watts: frugal GPUs, and no waking of an idle node while an awake one has room."""
    node = room.fleet.nodes[i]
    watts = next((w for name, w in WATTS.items() if node.gpu_model and matches_model(name, node.gpu_model)), 300)
    idle = room.cpu[i] >= node.cpu - EPSILON and free_whole(room.devices[i]) == len(node.devices)
    return need.gpu * watts + need.cpu * 5 + (node.power or 200.0 if idle else 0.0)


def coolest(room: Room, i: int, need: Need, mood: Mood) -> float:
    """The lowest temperature first; each session placed in this pass counts as 5 °C; unknown ones last."""
    temperature = room.fleet.nodes[i].temperature
    return (1000.0 if temperature is None else temperature) + 5.0 * room.held[i]


SELECTORS: dict[str, Score] = {
    score.__name__: score for score in (concentrated, dispersed, round_robin, least_fragmentation, least_power, coolest)
}


def selector(name: str) -> Score:
    """The score called `name`; `Invalid` with the names there are when there is none."""
    if name not in SELECTORS:
        known = ", ".join(SELECTORS)
        raise Invalid(S("There is no selector {name}; there are {known}.", name=name, known=known), [*SELECTORS])
    return SELECTORS[name]


def mix_of(needs: Iterable[Need]) -> dict[float, int]:
    """How often each number of GPUs per node is asked for."""
    return dict(Counter(round(need.gpu, 3) for need in needs if need.gpu > EPSILON)) or dict(USUAL_MIX)


def place(room: Room, need: Need, count: int, score: Score, mood: Mood) -> tuple[Placement, ...] | None:
    """`count` ranks of `need` on different nodes that fit now, or None. Nothing is taken."""
    fitting = [i for i in room.fleet.eligible(need) if room.fits(i, need)]
    if len(fitting) < count:
        return None
    best = nsmallest(count, fitting, key=lambda i: (score(room, i, need, mood), i))
    return tuple(room.placement(i, need) for i in best)
