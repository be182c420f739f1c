"""What a model's directory says of it: its card, how it is best served, and what in it should not be trusted.

Only files are read, nothing is loaded: weights are counted from the headers of safetensors files. What is broken or
strange is passed over, since a card must not keep a model from being installed.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from cluster.models import Card

MOST_TEXT = 100_000
"""Characters of a card's text."""
MOST_JSON = 8 * 2**20
MOST_HEADER = 100 * 2**20
"""Bytes of a safetensors file's header; the format allows no more."""
MOST_FILES = 20_000

SAFE = (".safetensors", ".gguf", ".onnx", ".onnx_data", ".onnx.data", ".json", ".jsonl", ".jinja", ".txt", ".md",
        ".yaml", ".yml", ".model", ".npz", ".tiktoken", ".license")  # fmt: skip
"""Endings of files that are data. Everything else stays at the hub: pickles run code when they are read."""
SAFE_NAMES = ("license", "notice", "readme", "merges.txt", "vocab.txt")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".h5", ".keras")
WEIGHTS = {".safetensors": "safetensors", ".gguf": "gguf", ".onnx": "onnx"}


@dataclass(frozen=True, slots=True)
class Found:
    """What is in a model's directory."""

    card: Card
    runtime: str
    """The one that can serve it; "" when none is known."""
    size: int
    pickles: list[str]
    """Files that run code when they are read."""
    file: str | None = None
    """The file to be served, where it is one among several kinds."""


def is_safe(name: str) -> bool:
    """Whether a file of the hub is data, by its name, and may lie where its name says."""
    parts = name.split("/")
    if name.startswith("/") or "\\" in name or "\0" in name or any(part in ("", ".", "..") for part in parts):
        return False
    last = parts[-1].lower()
    return not last.startswith(".") and (last.endswith(SAFE) or last in SAFE_NAMES)


def is_weights(name: str) -> bool:
    return name.lower().endswith(tuple(WEIGHTS))


def is_pickle(name: str) -> bool:
    return name.lower().endswith(PICKLES)


def look(directory: Path) -> Found:
    """Read the directory. Blocks. Raises OSError when it can't be read."""
    files = dict(_files(directory))
    config = _json(directory / "config.json")
    weights = next((kind for ending, kind in WEIGHTS.items() if any(n.lower().endswith(ending) for n in files)), None)
    pickles = sorted(name for name in files if is_pickle(name))
    gguf = sorted(name for name in files if name.lower().endswith(".gguf"))
    card = _card(directory).model_copy(
        update={
            "parameters": None if "quantization_config" in config else _parameters(directory, files),
            "format": weights or ("pickle" if pickles else None),
            "context_length": _context_length(config),
        }
    )
    runtime = _runtime(files, config, weights)
    return Found(card, runtime, sum(files.values()), pickles, gguf[0] if runtime == "command" and gguf else None)


def merged(told: Card, found: Card) -> Card:
    """What was found in the files, and where they say nothing what the recipe tells."""
    said = {key: value for key, value in found.model_dump().items() if value not in (None, "", [])}
    return Card.model_validate(told.model_dump() | said)


def _files(directory: Path) -> Iterable[tuple[str, int]]:
    """Relative names and sizes; links are not followed. Hidden directories are left out."""
    count = 0
    for folder, directories, names in os.walk(directory, onerror=_raise):
        directories[:] = [name for name in directories if not name.startswith(".")]
        for name in names:
            count += 1
            if count > MOST_FILES:
                return
            path = Path(folder) / name
            if not path.is_symlink() or path.is_file():
                yield str(path.relative_to(directory)), path.stat().st_size


def _raise(error: OSError) -> None:
    raise error


def _runtime(files: Mapping[str, int], config: Mapping[str, Any], weights: str | None) -> str:
    if "onnx/genai_config.json" in files and "tokenizer.json" in files:
        return "g"
    if weights == "gguf":
        return "command"
    return "vllm" if config.get("architectures") or config.get("model_type") else ""


# ── its parts ────────────────────────────────────────────────────────────────────────────────────


def _card(directory: Path) -> Card:
    """README.md: front matter and text."""
    try:
        text = (directory / "README.md").read_bytes()[: 4 * MOST_TEXT].decode(errors="replace")
    except OSError:
        return Card()
    from huggingface_hub import ModelCard  # half a second, for those who install only

    try:
        parsed = ModelCard(text, ignore_metadata_errors=True)
    except Exception:  # whatever a stranger's front matter does to YAML and the library: the text is there
        return Card(text=text[:MOST_TEXT])
    said = parsed.data.to_dict()  # type: ignore[no-untyped-call]
    return Card(
        license=_word(said.get("license_name") or said.get("license")),
        base_model=_word(said.get("base_model")),
        languages=_words(said.get("language")),
        tags=_words(said.get("tags")),
        text=parsed.text.strip()[:MOST_TEXT],
    )


def _word(value: Any) -> str | None:
    first = value[0] if isinstance(value, list) and value else value
    return first[:200] if isinstance(first, str) and first else None


def _words(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [word[:100] for word in values if isinstance(word, str)][:50]


def _json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(MOST_JSON))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _context_length(config: Mapping[str, Any]) -> int | None:
    inner = config.get("text_config")
    for part in (config, inner if isinstance(inner, dict) else {}):
        for key in ("max_position_embeddings", "n_positions", "n_ctx"):
            value = part.get(key)
            if isinstance(value, int) and 0 < value < 2**31:
                return value
    return None


def _parameters(directory: Path, files: Iterable[str]) -> int | None:
    """Counted from the headers of all safetensors files; None when there is none, or one can't be read."""
    counts = [_in_header(directory / name) for name in files if name.lower().endswith(".safetensors")]
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


def _in_header(path: Path) -> int | None:
    """Eight bytes of length (little endian), then JSON: tensor -> dtype, shape, offsets."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(length) if length <= MOST_HEADER else b""
        if len(text) != length:
            return None
        tensors = [tensor for name, tensor in json.loads(text).items() if name != "__metadata__"]
        return sum(int(prod(tensor["shape"])) for tensor in tensors)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
