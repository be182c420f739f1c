"""How many accelerators serve a dense transformer at so many requests a second.

Prefill is bound by compute, decoding by memory bandwidth: every step reads the weights once and each request's cache.
"""

from dataclasses import dataclass, replace
from math import ceil

from tools.design.gpus import Gpu
from tools.design.machines import PER_NODE
from tools.design.shapes import Shape, shape_of

PROMPT, ANSWER = 1000, 250
"""Assumed tokens of a request: about what the Azure traces of 2023 show (Splitwise, arXiv 2311.18677: medians of
1,020 and 129 for conversation, 1,500 and 13 for code)."""
TOKEN_SECONDS = 0.05
"""Wanted time between two tokens of an answer: 20 a second, faster than people read."""
PREFILL_SHARE = 0.4
"""Of peak compute in prefill (assumed; training on the same hardware reaches about as much)."""
BANDWIDTH_SHARE = 0.6
"""Of peak memory bandwidth in decoding, over the GPUs of a replica (assumed; Pope et al., arXiv 2211.05102, see the
bound, servers reach 50 to 75 % of it)."""
STEP_SECONDS = 0.005
"""Assumed for each decoding step: kernel launches, scheduling, all-reduces."""
SLOWER = 2.0
"""Where one request alone is slower than wanted: how much slower still a batch may make it."""
HEADROOM = 0.7
"""How full a replica is kept, so that queues stay short in bursts."""
BATCH = 256
"""Requests decoded together at most, as servers are set."""
USABLE = 0.9
"""Of the memory, as in training."""
_SPREADS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Serving:
    """A sized service. Rates are requests per second, `token_seconds` between two tokens, memory bytes on a GPU."""

    gpu: Gpu
    params: float
    replicas: int
    replica_gpus: int
    batch: int
    rate: float
    """What one replica carries, headroom left aside."""
    token_seconds: float
    first_seconds: float
    """Until the first token, when nothing waits."""
    memory: float
    cache_per_token: float
    """Bytes of keys and values for a token."""

    @property
    def gpus(self) -> int:
        """In whole nodes."""
        return self.nodes * PER_NODE

    @property
    def nodes(self) -> int:
        return ceil(self.replicas * self.replica_gpus / PER_NODE)

    @property
    def quick(self) -> bool:
        """Whether answers come as fast as wanted."""
        return self.token_seconds <= TOKEN_SECONDS

    @property
    def capacity(self) -> float:
        """Requests per second of all replicas."""
        return self.replicas * self.rate


def cache_per_token(shape: Shape) -> float:
    """Bytes of BF16 keys and values of one token, all layers (grouped-query attention, arXiv 2305.13245)."""
    return 2 * 2 * shape.layers * shape.kv_width


def serve(gpu: Gpu, params: float, rate: float | None) -> Serving | None:
    """The service that carries `rate` with the fewest nodes, all of them filled; the least where no rate is said.

    None when a model so large fits on no replica of 64. Replicas that answer too slowly are taken only when all do.
    """
    options = [r for spread in _SPREADS if (r := _replica(gpu, params, spread)) is not None]
    wanted = [r for r in options if r.quick] or options
    sized = [replace(r, replicas=max(1, ceil((rate or 0) / r.rate - 1e-9))) for r in wanted]
    best = min(sized, key=lambda r: (r.nodes, r.replicas * r.replica_gpus, r.token_seconds), default=None)
    return best and replace(best, replicas=max(1, best.gpus // best.replica_gpus))


def _replica(gpu: Gpu, params: float, spread: int) -> Serving | None:
    """One replica over `spread` GPUs with the largest batch that fits in memory and answers in time; None when not
    even one request fits. Each stage of a pipeline has a batch of its own at work."""
    shape = shape_of(params)
    weights, cache = 2 * params / spread, cache_per_token(shape) / spread
    room = USABLE * gpu.memory * 1e9 - weights
    most = min(BATCH, int(room / (cache * (PROMPT + ANSWER))))
    if most < 1:
        return None
    stages = max(1, spread // PER_NODE)
    most = max(1, most // stages)
    alone = _step(gpu, shape, spread, 1)
    wanted = TOKEN_SECONDS if alone <= TOKEN_SECONDS else SLOWER * alone
    batch = next((b for b in range(most, 1, -1) if _step(gpu, shape, spread, b) <= wanted), 1)
    step = _step(gpu, shape, spread, batch)
    prefill = 2 * params * PROMPT / (spread * gpu.flops * PREFILL_SHARE)
    return Serving(
        gpu, params, 1, spread, batch,
        rate=HEADROOM / (prefill + ANSWER * step / (batch * stages)),
        token_seconds=step,
        first_seconds=prefill * stages + step,
        memory=weights + batch * stages * cache * (PROMPT + ANSWER),
        cache_per_token=cache_per_token(shape),
    )  # fmt: skip


def _step(gpu: Gpu, shape: Shape, spread: int, batch: int) -> float:
    """Seconds of a decoding step: reading or computing, whichever takes longer. Stages of a pipeline that crosses
    nodes work one after the other for a token, so that speed is that of one node's GPUs."""
    context = PROMPT + ANSWER / 2
    together = min(spread, PER_NODE)
    read = (2 * shape.params + batch * context * cache_per_token(shape)) / (together * gpu.bandwidth * 1e9)
    compute = 2 * shape.params * batch / (together * gpu.flops * PREFILL_SHARE)
    return max(read / BANDWIDTH_SHARE, compute) + STEP_SECONDS
