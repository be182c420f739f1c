"""How many accelerators train a dense transformer, how long, and whether it fits in their memory.

    time of a step = FLOPs of a step / (GPUs · peak · MFU) + STEP_SECONDS

Sizes are counts, times are seconds, memory is bytes unless said otherwise.
"""

from dataclasses import dataclass
from math import ceil, inf
from typing import Literal

from tools.design.gpus import Gpu
from tools.design.machines import NETWORK, PER_NODE
from tools.design.shapes import Shape, shape_of

SEQUENCE = 4096
"""Tokens of a training sequence (Llama 2, arXiv 2307.09288); Llama 3 trained on twice that, GPT-3 on half."""
BATCH = 4e6
"""Tokens of a step (Llama 1 and 2; GPT-3 and BLOOM about as many; Llama 3 405B went up to 16 M)."""
STEP_SECONDS = 0.375
"""What a step costs however many GPUs share it: collectives' latency, optimiser, stragglers. Fitted with the MFUs."""
USABLE = 0.9
"""Of the memory; the rest goes to the driver, the libraries' buffers and fragmentation."""
TOKENS_PER_PARAMETER = 20
"""When nothing is said: what is best for the compute (Hoffmann et al., arXiv 2203.15556)."""
STATE_BYTES = 12
"""FP32 weights and two moments of Adam, sharded over data-parallel ranks (ZeRO stage 1, arXiv 1910.02054)."""
WEIGHT_BYTES = 4
"""BF16 weights and gradients, sharded by tensor and pipeline parallelism only."""
USUAL_DAYS = 30.0
"""How long a run of 8 B takes when no deadline is said; others by the power 0.3 of their size, so that 175 B takes
76 days and 405 B 97 (GPT-3 of the Megatron paper 34, BLOOM 117, Llama 3 405B about 80)."""
FULL_RECOMPUTATION = 4 / 3
"""Forward pass done twice: 8 instead of 6 FLOPs per parameter and token (arXiv 2104.04473)."""
_TENSOR = (1, 2, 4, 8)
_PIPELINE = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Layout:
    """How a model is spread: tensor parallelism inside a node, pipeline and data parallelism between nodes."""

    tensor: int
    pipeline: int
    recompute: Literal["selective", "full"]

    @property
    def gpus(self) -> int:
        """GPUs that hold one copy of the model."""
        return self.tensor * self.pipeline


@dataclass(frozen=True)
class Training:
    """A sized run. `seconds` is its length, `hours` are GPU hours, `memory` is bytes on the fullest GPU."""

    gpu: Gpu
    params: float
    tokens: float
    gpus: int
    layout: Layout
    seconds: float
    flops: float
    memory: float
    traffic: float
    """Bytes that a GPU exchanges with its data-parallel peers at each step, gradients and weights."""
    step: float
    """Seconds of a step."""

    @property
    def nodes(self) -> int:
        return self.gpus // PER_NODE

    @property
    def hours(self) -> float:
        return self.gpus * self.seconds / 3600

    @property
    def mfu(self) -> float:
        """FLOPs done over those that the hardware could have done."""
        return self.flops / (self.gpus * self.gpu.flops * self.seconds)

    @property
    def network_share(self) -> float:
        """Of a step, the time its traffic takes on one 400 Gb/s port each; hidden behind the computing below 1."""
        return self.traffic / (NETWORK * 1e9) / self.step


def training_flops(params: float, tokens: float, sequence: int = SEQUENCE) -> float:
    """FLOPs of a run: 6 N and the attention term 12 · layers · width · sequence a token (PaLM, arXiv 2204.02311)."""
    shape = shape_of(params)
    return tokens * (6 * params + 12 * shape.layers * shape.hidden * sequence)


def usual_seconds(params: float) -> float:
    """How long a run of this size is given when no deadline is said."""
    return float(USUAL_DAYS * 86_400 * (params / 8e9) ** 0.3)


def shortest(tokens: float) -> float:
    """Seconds below which no number of GPUs brings the run: its steps come one after the other."""
    return tokens / BATCH * STEP_SECONDS


def memory_of(shape: Shape, layout: Layout, gpus: int) -> float:
    """Bytes on the fullest GPU, a sequence at a time: weights, gradients, sharded states, activations, logits.

    Activations: 34 bytes per token, width and layer where attention is recomputed, 2 where everything is (and one layer
    in full), on the first stage for as many micro-batches as there are stages (Korthikanti et al., arXiv 2205.05198).
    """
    weights = WEIGHT_BYTES * shape.params / layout.gpus + STATE_BYTES * shape.params / gpus
    row = SEQUENCE * shape.hidden / layout.tensor
    kept = 34 * row * shape.layers if layout.recompute == "selective" else row * (2 * shape.layers + 34)
    logits = 6 * SEQUENCE * shape.vocabulary / layout.tensor
    return weights + kept + logits


def train(gpu: Gpu, params: float, tokens: float, seconds: float) -> Training | None:
    """The smallest cluster of whole nodes that ends in `seconds`; None when no number of these GPUs does."""
    shape, left = shape_of(params), seconds - shortest(tokens)
    if left <= 0:
        return None
    sizes = [(gpus, layout) for layout in _layouts(shape) if (gpus := _needed(gpu, shape, layout, tokens, left))]
    if not sizes:
        return None
    gpus, layout = min(sizes, key=lambda size: size[0])
    return _sized(gpu, params, tokens, gpus, layout)


def _needed(gpu: Gpu, shape: Shape, layout: Layout, tokens: float, left: float) -> int:
    """How many GPUs the work takes in `left` seconds and Adam's states take in memory; 0 when it can't be."""
    rest = memory_of(shape, layout, 1) - STATE_BYTES * shape.params
    room = USABLE * gpu.memory * 1e9 - rest
    if room <= 0:
        return 0
    work = training_flops(shape.params, tokens) * _slower(layout)
    gpus = _whole(max(work / (gpu.flops * gpu.mfu * left), STATE_BYTES * shape.params / room), layout)
    return gpus if _fits(gpu, shape, layout, gpus) else 0


def train_on(gpu: Gpu, params: float, tokens: float, gpus: int) -> Training | None:
    """The run on exactly so many GPUs, however long it takes; None when it doesn't fit."""
    shape = shape_of(params)
    for layout in _layouts(shape):
        if gpus % layout.gpus == 0 and _fits(gpu, shape, layout, gpus):
            return _sized(gpu, params, tokens, gpus, layout)
    return None


def _layouts(shape: Shape) -> list[Layout]:
    """From the least spread to the most; everything recomputed only when nothing else fits."""
    pairs = sorted(((t, p) for t in _TENSOR for p in _PIPELINE if p <= shape.layers), key=lambda x: (x[0] * x[1], x[1]))
    kinds: tuple[Literal["selective", "full"], ...] = ("selective", "full")
    return [Layout(t, p, kind) for kind in kinds for t, p in pairs]


def _whole(gpus: float, layout: Layout) -> int:
    """Up to whole nodes and whole copies of the model."""
    unit = max(PER_NODE, layout.gpus)
    return max(1, ceil(gpus / unit - 1e-9)) * unit


def _fits(gpu: Gpu, shape: Shape, layout: Layout, gpus: int) -> bool:
    """In memory, and with at least one sequence of each step for each copy of the model."""
    enough_work = gpus / layout.gpus <= BATCH / SEQUENCE
    return enough_work and memory_of(shape, layout, gpus) <= USABLE * gpu.memory * 1e9 * (1 + 1e-6)


def _slower(layout: Layout) -> float:
    return FULL_RECOMPUTATION if layout.recompute == "full" else 1.0


def _sized(gpu: Gpu, params: float, tokens: float, gpus: int, layout: Layout) -> Training:
    flops = training_flops(params, tokens)
    seconds = flops * _slower(layout) / (gpus * gpu.flops * gpu.mfu) + shortest(tokens)
    return Training(
        gpu, params, tokens, gpus, layout, seconds, flops,
        memory=memory_of(shape_of(params), layout, gpus),
        traffic=WEIGHT_BYTES * params / layout.gpus if gpus > layout.gpus else 0.0,
        step=seconds * BATCH / tokens if tokens else inf,
    )  # fmt: skip
