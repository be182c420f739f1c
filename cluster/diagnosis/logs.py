"""What the end of a session's output says about why it failed.

The text is anybody's: it is searched, and one line of it is quoted. It is never read as an order, a path or a template.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from cluster.models import Quote, Sentence
from cluster.sentence import S

MOST_QUOTED = 240
"""Characters of a line that are quoted."""
MOST_LINE = 4096
"""Characters of a line that are searched."""
LATELY = 20
"""Of a session that runs, what some causes say counts only within so many last lines: later it has got over it."""


@dataclass(frozen=True)
class Cause:
    """`running`: whether it also counts for one that has not ended: always, lately, or only while it is idle."""

    code: str
    pattern: re.Pattern[str]
    message: Sentence
    advice: Sentence
    running: str = "never"


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


CAUSES = (
    Cause(
        "gpu_error",
        _any(r"uncorrectable ECC error", r"NVRM: Xid", r"GPU has fallen off the bus", r"\bXid \d+\b.*\bGPU\b"),
        S("{name} met a hardware error of a GPU."),
        S("Take its node out of service and have the GPU checked; the work itself is not to blame."),
        running="always",
    ),
    Cause(
        "cuda_oom",
        _any(
            r"CUDA out of memory",
            r"CUDA error: out of memory",
            r"CUBLAS_STATUS_ALLOC_FAILED",
            r"HIP out of memory",
            r"cudaErrorMemoryAllocation",
        ),
        S("{name} ran out of GPU memory."),
        S("A smaller batch, gradient accumulation or checkpointing needs less; or a GPU with more memory."),
        running="idle",
    ),
    Cause(
        "out_of_memory",
        _any(
            r"\boom-kill",
            r"Out of memory: Killed process",
            r"\bOOMKilled\b",
            r"^MemoryError\b",
            r"DefaultCPUAllocator: can't allocate memory",
            r"Cannot allocate memory",
        ),
        S("{name} ran out of memory."),
        S("Ask for more memory, or load less at a time (fewer data workers, smaller shards)."),
        running="idle",
    ),
    Cause(
        "no_space",
        _any(r"No space left on device", r"\bENOSPC\b", r"Disk quota exceeded", r"\bEDQUOT\b"),
        S("{name} found no space left to write to."),
        S("Make room in the folder that it writes to, or give that folder a larger quota, and start it again."),
        running="lately",
    ),
    Cause(
        "image_missing",
        _any(
            r"manifest (for \S+ )?(unknown|not found)",
            r"pull access denied",
            r"\b(Err)?ImagePull(BackOff)?\b",
            r"Unable to find image",
            r"\bno such image\b",
        ),
        S("The image of {name} could not be fetched."),
        S("Check the image's name, and that the node may fetch it from its registry."),
    ),
    Cause(
        "module_missing",
        _any(
            r"ModuleNotFoundError: No module named",
            r"ImportError: (cannot import name|lib\S+\.so)",
            r"error while loading shared libraries",
        ),
        S("{name} lacks a module that it imports."),
        S("Install it in the image or at the start of the command, or use an image that has it."),
    ),
    Cause(
        "network",
        _any(
            r"\bncclSystemError\b",
            r"\bncclRemoteError\b",
            r"NCCL (error|communicator was aborted)",
            r"Watchdog caught collective operation timeout",
        ),
        S("The ranks of {name} lost each other."),
        S("Often another rank failed first: look at its output; else check the network between its nodes."),
        running="idle",
    ),
    Cause(
        "file_missing",
        _any(r"FileNotFoundError:", r": No such file or directory"),
        S("{name} did not find a file."),
        S("Check the path, and that the folder is mounted."),
    ),
    Cause(
        "permission",
        _any(r"PermissionError:", r"\bPermission denied\b"),
        S("{name} was not allowed to use a file."),
        S("Check that its folder is shared with you to write, where it writes."),
    ),
    Cause(
        "exception",
        re.compile(r"^(\w+\.)*[A-Z]\w*(Error|Exception)\b(:|$)"),
        S("{name} ended with an error of its program."),
        S("Its output says where; it has to be put right in the program."),
    ),
)
"""The first that fits counts: what says most comes first."""

_NAN = re.compile(r"""\bloss\b['"]?\s*[:=|]?\s*(nan\b)?""", re.IGNORECASE)
NAN = S("The loss of {name} is not a number any more: it learns nothing, and holds its GPUs.")
NAN_ADVICE = S("Stop it; a lower learning rate, gradient clipping or bfloat16 is what usually helps.")


@dataclass(frozen=True)
class Told:
    """What a log says."""

    cause: Cause
    quote: Quote


def why(text: str, *, running: bool, idle: bool = False) -> Told | None:
    """The cause that the end of an output tells of, with the last line that says so."""
    lines = _lines(text)
    for cause in CAUSES:
        first = _from(cause, len(lines), running, idle)
        found = next((i for i in reversed(range(first, len(lines))) if cause.pattern.search(lines[i])), None)
        if found is not None:
            return Told(cause, _quote(lines, found))
    return None


def _from(cause: Cause, count: int, running: bool, idle: bool) -> int:
    """From which line on the cause counts."""
    counts: dict[str, Callable[[], int]] = {
        "always": lambda: 0,
        "lately": lambda: max(0, count - LATELY),
        "idle": lambda: 0 if idle else count,
        "never": lambda: count,
    }
    return counts[cause.running]() if running else 0


def not_a_number(text: str) -> Quote | None:
    """The last line with a loss, if that and the one before it say nan."""
    lines = _lines(text)
    losses = [(i, found) for i, line in enumerate(lines) if (found := _NAN.search(line))]
    if len(losses) < 2 or not all(found[1] for _, found in losses[-2:]):
        return None
    return _quote(lines, losses[-1][0])


def _lines(text: str) -> list[str]:
    """A progress bar's many states are lines too."""
    return [line[:MOST_LINE] for line in re.split(r"[\r\n]+", text) if line.strip()]


def _quote(lines: list[str], at: int) -> Quote:
    return Quote(text=clean(lines[at]), back=len(lines) - 1 - at)


_COLOURS = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)?")


def clean(line: str) -> str:
    """Without colours, control and invisible characters, cut to `MOST_QUOTED`."""
    plain = _COLOURS.sub("", line).replace("\t", " ")
    kept = "".join(c for c in plain if unicodedata.category(c)[0] != "C" and c not in "\u2028\u2029").strip()
    return kept if len(kept) <= MOST_QUOTED else kept[: MOST_QUOTED - 1] + "…"
