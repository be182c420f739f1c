"""What somebody wishes, and the cluster that grants it; or what stands in the way and what could be had instead."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tools.design.gpus import GPUS, Gpu
from tools.design.machines import PER_NODE, cost, nodes_within, power, upkeep
from tools.design.serving import Serving, serve
from tools.design.training import TOKENS_PER_PARAMETER, Training, shortest, train, train_on, usual_seconds

USUAL = ("A100-80G", "H100", "H200", "B200")
"""What is compared when no GPU is named."""
SHOWN = 3
MONTH_HOURS = 730.0

Obstacle = Literal["deadline", "memory", "budget", "power", "no_training"]
Binding = Literal["deadline", "usual", "node", "memory", "power", "rate", "latency"]


@dataclass(frozen=True)
class Wish:
    """Counts as they are, seconds, requests per second, USD, W."""

    goal: Literal["train", "serve"]
    params: float
    tokens: float | None = None
    seconds: float | None = None
    rate: float | None = None
    gpu: Gpu | None = None
    budget: float | None = None
    watts: float | None = None

    @property
    def wanted_tokens(self) -> float:
        return self.tokens or TOKENS_PER_PARAMETER * self.params


@dataclass(frozen=True)
class Option:
    """One way to build it. `cost` is USD for the run, or for a month of serving; `watts` without the spare nodes.

    `plan` is None when this GPU can't do it at any number. `tokens` and `seconds`: what could be had instead.
    """

    gpu: Gpu
    plan: Training | Serving | None
    spares: int = 0
    watts: float = 0.0
    cost: tuple[float, float] | None = None
    binding: Binding | None = None
    obstacles: tuple[Obstacle, ...] = ()
    tokens: float | None = None
    """About so many could be trained on for the budget."""
    seconds: float | None = None
    """So long would it take within the power, or at the very least."""


@dataclass(frozen=True)
class Design:
    """The best option and the others, cheapest first."""

    wish: Wish
    best: Option
    others: tuple[Option, ...]

    @property
    def possible(self) -> bool:
        return not self.best.obstacles


def design(wish: Wish) -> Design:
    """The cheapest usual GPU that does what was wished, or the named one, and at most two to compare with."""
    first = [wish.gpu] if wish.gpu else []
    named = [*first, *(GPUS[name] for name in USUAL if GPUS[name] not in first)]
    options = [option(replace(wish, gpu=gpu)) for gpu in named]
    if wish.gpu:
        return Design(wish, options[0], tuple(_ranked(options[1:])[: SHOWN - 1]))
    best, *others = _ranked(options)
    return Design(wish, best, tuple(others[: SHOWN - 1]))


def option(wish: Wish) -> Option:
    """What the wished GPU can do; `wish.gpu` is set."""
    found = _training(wish) if wish.goal == "train" else _serving(wish)
    missing = (*found.obstacles, *_unpaid(wish, found))
    return replace(found, obstacles=missing, tokens=_affordable(wish, found) if "budget" in missing else None)


def _ranked(options: Sequence[Option]) -> list[Option]:
    """Those that do it first, then by cost."""
    return sorted(options, key=lambda o: (len(o.obstacles), _middle(o)))


def _middle(found: Option) -> float:
    return sum(found.cost) / 2 if found.cost else float("inf")


def _training(wish: Wish) -> Option:
    gpu = _gpu_of(wish)
    tokens, seconds = wish.wanted_tokens, wish.seconds or usual_seconds(wish.params)
    if not gpu.trains:
        return Option(gpu, None, obstacles=("no_training",))
    seconds = seconds if wish.seconds else max(seconds, 2 * shortest(tokens))
    plan = train(gpu, wish.params, tokens, seconds)
    if plan is None:
        late = shortest(tokens) >= seconds
        return Option(gpu, None, obstacles=("deadline" if late else "memory",), seconds=shortest(tokens))
    found = _kept_up(plan, "usual" if wish.seconds is None else "deadline")
    if wish.watts is not None and found.watts > wish.watts:
        return _within_power(wish, found)
    smallest = plan.gpus == max(PER_NODE, plan.layout.gpus) and plan.seconds < 0.9 * seconds
    return replace(found, binding=_least(plan.layout.gpus)) if smallest else found


def _least(copy: int) -> Binding:
    """What decides when the smallest cluster is enough: a whole node, or what a copy of the model takes."""
    return "memory" if copy > PER_NODE // 2 else "node"


def _gpu_of(wish: Wish) -> Gpu:
    if wish.gpu is None:
        raise ValueError("a wish for one option names its GPU")
    return wish.gpu


def _kept_up(plan: Training | Serving, binding: Binding) -> Option:
    """With its spare nodes, power and cost."""
    spares = upkeep(plan.params, plan.gpus).spares
    hours = plan.hours if isinstance(plan, Training) else plan.gpus * MONTH_HOURS
    return Option(plan.gpu, plan, spares, power(plan.gpu, plan.nodes), cost(plan.gpu, hours), binding)


def _within_power(wish: Wish, found: Option) -> Option:
    """As many nodes as the power carries: longer, or not possible when there is a deadline."""
    longer = _powered(wish, found.gpu)
    if longer is None or not isinstance(longer.plan, Training):
        return replace(found, obstacles=("power",))
    if wish.seconds is None:
        return longer
    return replace(found, obstacles=("power",), seconds=longer.plan.seconds)


def _powered(wish: Wish, gpu: Gpu) -> Option | None:
    """The largest cluster that the power carries; None when the model doesn't fit on it."""
    most = nodes_within(gpu, wish.watts or 0.0)
    for nodes in range(most, 0, -max(1, most // 2000)):
        plan = train_on(gpu, wish.params, wish.wanted_tokens, nodes * PER_NODE)
        if plan and (found := _kept_up(plan, "power")).watts <= (wish.watts or 0.0):
            return found
    return None


def _serving(wish: Wish) -> Option:
    gpu = _gpu_of(wish)
    plan = serve(gpu, wish.params, wish.rate)
    if plan is None:
        return Option(gpu, None, obstacles=("memory",))
    smallest = plan.gpus == max(PER_NODE, plan.replica_gpus)
    found = _kept_up(plan, "latency" if not plan.quick else _least(plan.replica_gpus) if smallest else "rate")
    over = wish.watts is not None and found.watts > wish.watts
    return replace(found, obstacles=("power",)) if over else found


def _unpaid(wish: Wish, found: Option) -> tuple[Obstacle, ...]:
    too_dear = wish.budget is not None and found.cost is not None and found.cost[0] > wish.budget
    return ("budget",) if too_dear else ()


def _affordable(wish: Wish, found: Option) -> float | None:
    """Tokens that the budget pays for at the cheapest price; a run's cost falls at least as fast as its tokens."""
    if wish.goal == "serve" or not found.cost or wish.budget is None:
        return None
    return wish.wanted_tokens * wish.budget / found.cost[0]
