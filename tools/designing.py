"""What cluster it takes to train or serve a model: the tool over the arithmetic in `tools/design`."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, JsonValue

from cluster.models import S, Sentence
from cluster.units import parse_duration
from tools.base import Arguments, Context, ReadingTool, Result
from tools.design import machines, serving, training
from tools.design.gpus import find_gpu, near_gpus
from tools.design.serving import Serving
from tools.design.sizing import Binding, Design, Obstacle, Option, Wish, design
from tools.design.training import Training
from tools.kinds import Amount, Count, Duration, Money, Power, Text
from tools.linking.quantities import count_of, dollars_of, watts_of
from tools.outcome import unfit
from tools.show import facts, percent, span
from tools.views import Cell

Line = tuple[Sentence, Cell | str | None]

_BINDING: dict[Binding, Sentence] = {
    "deadline": S("the deadline"),
    "usual": S("the time such a run usually takes, since no deadline was said"),
    "node": S("a whole node: one is enough"),
    "memory": S("memory: fewer don't hold the model"),
    "power": S("the power"),
    "rate": S("the requests per second"),
    "latency": S("the speed of an answer: no usual layout reaches it"),
}


class DesignClusterArguments(Arguments):
    goal: Literal["train", "serve"]
    model_parameters: Count = Field(description='"70b", "8.03b", "500m".')
    tokens: Count | None = Field(None, description='To train on: "2t". Default: 20 for each parameter.')
    deadline: Duration | None = Field(None, description="Within which the training has to end.")
    requests_per_second: Amount | None = Field(None, description="To serve.")
    gpu_model: Text | None = Field(None, description="Default: the usual ones are compared.")
    budget: Money | None = Field(None, description='For renting: "$2M", "500000000 KRW".')
    power_limit: Power | None = Field(None, description='Of the building: "60kW".')


class DesignCluster(ReadingTool[DesignClusterArguments]):
    """Size a cluster that trains or serves a model of a given size: GPUs, nodes, time, memory, power and cost."""

    name = "design_cluster"
    arguments = DesignClusterArguments

    async def read(self, ctx: Context, args: DesignClusterArguments) -> Result:
        gpu = find_gpu(args.gpu_model) if args.gpu_model else None
        if args.gpu_model and gpu is None:
            said = S("Nothing is known here of the GPU {said}, so it can't be reckoned with.", said=args.gpu_model[:80])
            return unfit(ctx, "not_found", said, near_gpus(args.gpu_model))
        wish = Wish(
            args.goal,
            count_of(args.model_parameters),
            tokens=count_of(args.tokens) if args.tokens else None,
            seconds=parse_duration(args.deadline) if args.deadline else None,
            rate=args.requests_per_second or None,
            gpu=gpu,
            budget=dollars_of(args.budget) if args.budget else None,
            watts=watts_of(args.power_limit) if args.power_limit else None,
        )
        found = design(wish)
        answer = ctx.say(_answer(ctx, found))
        view = facts(ctx, answer, _lines(ctx, found))
        return Result(status="done", data=_data(found), view=view, answer=answer)


# ── amounts ──────────────────────────────────────────────────────────────────────────────────────


def many(value: float) -> str:
    """Three digits and a letter: "1.72M", "70B", "2T"; whole numbers below ten thousand as they are."""
    for scale, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if value >= 0.9995 * scale:
            return f"{_short(value / (1e3 if letter == 'k' else scale))}{letter}"
    return _short(value) if value < 100 else f"{value:,.0f}"


def _short(value: float) -> str:
    """Three digits, never with an exponent."""
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


def _bytes(value: float) -> str:
    """Decimal bytes: "53.2 GB", "5.7 TB"."""
    scale, unit = (1e12, "TB") if value >= 1e12 else (1e9, "GB") if value >= 1e9 else (1e6, "MB")
    return f"{_short(value / scale)} {unit}"


def _power(watts: float) -> str:
    return f"{_short(watts / 1e6)} MW" if watts >= 1e6 else f"{_short(watts / 1e3)} kW"


def _money(cost: tuple[float, float] | None) -> str | None:
    return f"${many(cost[0])} – ${many(cost[1])}" if cost else None


def _rate(value: float) -> str:
    return _short(value)


# ── sentences ────────────────────────────────────────────────────────────────────────────────────


def _answer(ctx: Context, found: Design) -> Sentence:
    best, wish = found.best, found.wish
    if best.obstacles:
        return _no(ctx, found, best.obstacles[0])
    params = many(wish.params)
    if isinstance(best.plan, Training):
        return S(
            "Training {params} parameters on {tokens} tokens takes {gpus} {gpu} GPUs about {time}: {hours} GPU hours.",
            params=params, tokens=many(best.plan.tokens), gpus=f"{best.plan.gpus:,}", gpu=best.gpu.name,
            time=span(ctx, best.plan.seconds), hours=many(best.plan.hours),
        )  # fmt: skip
    rate = _rate(wish.rate or (best.plan.capacity if best.plan else 0))
    gpus = f"{best.plan.gpus:,}" if best.plan else "0"
    if wish.rate is None:
        return S(
            "{gpus} {gpu} GPUs are the least that serves {params} parameters; they carry {rate} requests per second.",
            params=params, gpus=gpus, gpu=best.gpu.name, rate=rate,
        )  # fmt: skip
    return S(
        "Serving {params} parameters at {rate} requests per second takes {gpus} {gpu} GPUs.",
        params=params, rate=rate, gpus=gpus, gpu=best.gpu.name,
    )  # fmt: skip


def _no(ctx: Context, found: Design, obstacle: Obstacle) -> Sentence:
    """That it can't be had, why, and what could be."""
    best, wish = found.best, found.wish
    gpu, params = best.gpu.name, many(wish.params)
    match obstacle:
        case "no_training":
            return S("The {gpu} accelerator only serves models, it trains none.", gpu=gpu)
        case "memory":
            return S(
                "A model of {params} parameters doesn't fit on {gpu} GPUs in any usual layout.", params=params, gpu=gpu
            )
        case "deadline":
            return S(
                "No number of GPUs does it in time: the training steps, one after the other, take about {time}.",
                time=span(ctx, best.seconds or 0),
            )  # fmt: skip
        case "power":
            return _not_powered(ctx, found)
        case "budget":
            return _not_paid(found)


def _not_powered(ctx: Context, found: Design) -> Sentence:
    best = found.best
    limit, need = _power(found.wish.watts or 0), _power(best.watts)
    if best.seconds is not None:
        return S(
            "{limit} is not enough: it takes {need}. Within {limit} it would take about {time} on {gpu} GPUs.",
            limit=limit, need=need, time=span(ctx, best.seconds), gpu=best.gpu.name,
        )  # fmt: skip
    return S("{limit} is not enough: the smallest cluster for it takes {need}.", limit=limit, need=need)


def _not_paid(found: Design) -> Sentence:
    best = found.best
    budget, need = f"${many(found.wish.budget or 0)}", f"${many(best.cost[0] if best.cost else 0)}"
    if best.tokens is not None:
        return S(
            "{budget} is not enough: it takes at least {need}. It would pay for training on about {tokens} tokens.",
            budget=budget, need=need, tokens=many(best.tokens),
        )  # fmt: skip
    return S("{budget} is not enough: a month of it takes at least {need}.", budget=budget, need=need)


# ── facts ────────────────────────────────────────────────────────────────────────────────────────


def _lines(ctx: Context, found: Design) -> list[Line]:
    best = found.best
    plan = _training(ctx, best.plan) if isinstance(best.plan, Training) else _serving(ctx, best.plan)
    built = _built(ctx, found) if best.plan else []
    others = [(S("Instead"), _other(ctx, other)) for other in found.others]
    return [*built, *plan, *others, *((S("Assumed"), ctx.say(s)) for s in _assumptions(found))]


def _built(ctx: Context, found: Design) -> list[Line]:
    best = found.best
    nodes = best.plan.nodes if best.plan else 0
    with_spares = S(
        "{nodes} of {size} GPUs, and {spares} spare", nodes=nodes, size=machines.PER_NODE, spares=best.spares
    )
    price = S("Cost of the run") if found.wish.goal == "train" else S("Cost of a month")
    return [
        (S("Nodes"), ctx.say(with_spares)),
        (S("Decided by"), ctx.say(_BINDING[best.binding]) if best.binding and not best.obstacles else None),
        (S("Power"), _power(best.watts)),
        (price, _money(best.cost) or ctx.say(S("no public price"))),
        (S("Budget"), _paid(ctx, found)),
    ]


def _paid(ctx: Context, found: Design) -> Cell | None:
    """What the budget does."""
    budget, cost = found.wish.budget, found.best.cost
    if budget is None:
        return None
    amount = f"${many(budget)}"
    if cost is None:
        return Cell(text=ctx.say(S("{budget}; can't be compared", budget=amount)), tone="warn")
    if budget < cost[0]:
        return Cell(text=ctx.say(S("{budget}; not enough", budget=amount)), tone="bad")
    if found.wish.goal == "serve":
        low, high = (f"{budget / c:.1f}" for c in reversed(cost))
        return Cell(text=ctx.say(S("{budget}; enough for {low} to {high} months", budget=amount, low=low, high=high)))
    if budget < cost[1]:
        return Cell(text=ctx.say(S("{budget}; enough at the cheaper offers only", budget=amount)), tone="warn")
    return Cell(text=ctx.say(S("{budget}; enough", budget=amount)), tone="good")


def _training(ctx: Context, plan: Training) -> list[Line]:
    keep = machines.upkeep(plan.params, plan.gpus)
    layout = S("tensor {tensor}, pipeline {pipeline}, data {data}", tensor=plan.layout.tensor,
               pipeline=plan.layout.pipeline, data=plan.gpus // plan.layout.gpus)  # fmt: skip
    memory = S("{used} of {size} on each GPU", used=_bytes(plan.memory), size=_bytes(plan.gpu.memory * 1e9))
    traffic = S("{amount} per GPU and step of {time} s; {share} of a step on 400 Gb/s", amount=_bytes(plan.traffic),
                time=_rate(plan.step), share=percent(plan.network_share))  # fmt: skip
    saved = S("{size} every {interval}; storage that takes {rate} per second", size=_bytes(keep.checkpoint),
              interval=span(ctx, keep.interval), rate=_bytes(keep.write_bandwidth))  # fmt: skip
    return [
        (
            S("Compute"),
            ctx.say(S("{flops} FLOP at {share} of the peak", flops=f"{plan.flops:.2e}", share=percent(plan.mfu))),
        ),
        (S("Memory"), ctx.say(memory)),
        (S("Layout"), ctx.say(layout)),
        (S("Network"), ctx.say(traffic) if plan.nodes > 1 else None),
        (S("Checkpoints"), ctx.say(saved)),
        (S("Interruptions"), ctx.say(S("about {count} a day", count=f"{keep.interruptions:.2g}"))),
    ]


def _serving(ctx: Context, plan: Serving | None) -> list[Line]:
    if plan is None:
        return []
    replicas = S("{count} of {size} GPUs, {batch} requests together in each", count=plan.replicas,
                 size=plan.replica_gpus, batch=plan.batch)  # fmt: skip
    memory = S("{used} of {size} on each GPU", used=_bytes(plan.memory), size=_bytes(plan.gpu.memory * 1e9))
    speed = S("{rate} tokens per second for each reader, the first after {first} s",
              rate=f"{1 / plan.token_seconds:.0f}", first=f"{plan.first_seconds:.2f}")  # fmt: skip
    return [
        (S("Replicas"), ctx.say(replicas)),
        (S("Carries"), ctx.say(S("{rate} requests per second", rate=_rate(plan.capacity)))),
        (S("Memory"), ctx.say(memory)),
        (S("Cache"), ctx.say(S("{size} for each token", size=_bytes(plan.cache_per_token)))),
        (S("Speed"), Cell(text=ctx.say(speed), tone="plain" if plan.quick else "warn")),
    ]


def _other(ctx: Context, other: Option) -> Cell:
    """One line for a GPU that is not the best."""
    if other.plan is None:
        return Cell(text=ctx.say(S("{gpu}: not possible", gpu=other.gpu.name)), tone="muted")
    time = span(ctx, other.plan.seconds) if isinstance(other.plan, Training) else None
    parts = [f"{other.plan.gpus:,} × {other.gpu.name}", time, _power(other.watts), _money(other.cost)]
    return Cell(text=", ".join(p for p in parts if p), tone="muted" if other.obstacles else "plain")


def _assumptions(found: Design) -> list[Sentence]:
    """What was assumed, said or not; the sources are with the constants in `tools/design`."""
    goal = _of_training(found) if found.wish.goal == "train" else _of_serving(found)
    rent = S("GPUs are rented at prices of 2025, which move; spares, storage and network are not in the cost.")
    place = S("The building takes {pue} times the power of the machines, nodes {node} times that of their GPUs.",
              pue=machines.PUE, node=machines.NODE_OVERHEAD)  # fmt: skip
    return [S("A dense model shaped like Llama 3; a mixture of experts needs less computing."), *goal, rent, place]


def _of_training(found: Design) -> Sequence[Sentence]:
    wish, gpu = found.wish, found.best.gpu
    share = percent(gpu.mfu)
    fitted = S("{gpu} GPUs reach {share} of their peak but for {step} s a step, judged by published runs.",
               gpu=gpu.name, share=share, step=training.STEP_SECONDS)  # fmt: skip
    guessed = S("{gpu} GPUs reach {share} of their peak: a cautious guess, no published run was at hand.",
                gpu=gpu.name, share=share)  # fmt: skip
    said = [
        S("{count} tokens for each parameter.", count=training.TOKENS_PER_PARAMETER) if wish.tokens is None else None,
        (fitted if gpu.measured else guessed) if gpu.trains else None,
        S("BF16 with Adam; {batch} tokens in a step, {sequence} in a sequence.", batch=many(training.BATCH),
          sequence=training.SEQUENCE),
        S("The requests per second play no part in training.") if wish.rate else None,
    ]  # fmt: skip
    return [s for s in said if s]


def _of_serving(found: Design) -> Sequence[Sentence]:
    wish = found.wish
    said = [
        S("BF16; {prompt} tokens asked and {answer} answered; 70 % full at most.", prompt=serving.PROMPT,
          answer=serving.ANSWER),
        S("{compute} of the peak in reading a prompt, {bandwidth} of the memory bandwidth in answering.",
          compute=percent(serving.PREFILL_SHARE), bandwidth=percent(serving.BANDWIDTH_SHARE)),
        S("Tokens and a deadline play no part in serving.") if wish.tokens or wish.seconds else None,
    ]  # fmt: skip
    return [s for s in said if s]


# ── data ─────────────────────────────────────────────────────────────────────────────────────────


def _data(found: Design) -> dict[str, JsonValue]:
    """For models and scripts: plain numbers with their units in the names."""
    return {
        "possible": found.possible,
        "best": _numbers(found.best),
        "alternatives": [_numbers(o) for o in found.others],
        "assumptions": [str(s) for s in _assumptions(found)],
    }


def _numbers(o: Option) -> dict[str, JsonValue]:
    plan = o.plan
    numbers: dict[str, JsonValue] = {"gpu": o.gpu.name, "obstacles": [*o.obstacles], "decided_by": o.binding}
    if plan is not None:
        numbers |= {
            "gpus": plan.gpus,
            "nodes": plan.nodes,
            "spare_nodes": o.spares,
            "power_kw": round(o.watts / 1e3, 1),
        }
        numbers |= {"memory_gb": round(plan.memory / 1e9, 1)}
        numbers["cost_usd"] = [round(c) for c in o.cost] if o.cost else None
    if isinstance(plan, Training):
        numbers |= {"gpu_hours": round(plan.hours), "days": round(plan.seconds / 86_400, 2), "mfu": round(plan.mfu, 3)}
    if isinstance(plan, Serving):
        numbers |= {"replicas": plan.replicas, "requests_per_second": round(plan.capacity, 2)}
    if o.seconds is not None:
        numbers["possible_days"] = round(o.seconds / 86_400, 2)
    if o.tokens is not None:
        numbers["possible_tokens"] = round(o.tokens)
    return numbers
