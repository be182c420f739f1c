"""The model store: what a model is, where it comes from, and how it is served."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from cluster.models.base import Model, Reason

__all__ = ["Card", "InstallModel", "Launch", "Recipe", "StoredModel"]


class Card(Model):
    """What people want to know of a model; after the metadata of Hugging Face's model cards."""

    parameters: int | None = None
    """How many weights it has."""
    format: str | None = None
    """safetensors, gguf, onnx …"""
    license: str | None = None
    base_model: str | None = None
    context_length: int | None = None
    """Tokens."""
    languages: list[str] = []
    tags: list[str] = []
    text: str = Field(default="", max_length=100_000)
    """Markdown: what it is for, what it was trained on, where it fails."""


class Launch(Model):
    """What one replica runs, and what it needs."""

    command: str = Field(min_length=1, max_length=8000)
    """A shell command line. `$PORT` is where it has to listen, `$MODEL_PATH` the model's directory, `$MODEL_NAME` its
    name, `$GPU_COUNT` the whole devices that it has."""
    image: str | None = None
    env: dict[str, str] = {}
    cpu: float = Field(default=1, gt=0)
    memory: int | None = Field(default=None, gt=0)
    gpu: float = Field(default=0, ge=0)
    gpu_model: str | None = None
    health: str = Field(default="/health", pattern=r"^/")
    """Answers 2xx when the replica can serve."""
    ready_within: float = Field(default=600, gt=0)
    """Seconds that it may take from running to its first good health check."""
    files: str | None = None
    """The directory with the model's files, which a replica may read. The store says it, never a recipe."""


class Recipe(Model):
    """How a model is had and served. Recipes that ship lie in `cluster/serving/recipes/`."""

    name: str
    title: str = ""
    runtime: Literal["vllm", "transformers", "command", "g"]
    source: str | None = None
    """A hub id (`org/name`) or an absolute directory; None when the command brings its own model."""
    launch: Launch
    card: Card = Card()


class StoredModel(Model):
    """A model of the store."""

    name: str
    owner: str
    project: str | None = None
    """Whose members see it; None: everybody."""
    source: str
    runtime: str
    card: Card
    size: int = 0
    state: Literal["installing", "ready", "failed"]
    reasons: list[Reason] = []
    created: datetime
    endpoints: list[str] = []
    """Names of those that serve it now."""
    progress: float | None = None
    """While it is fetched: the share that is there, 0..1; None before its size is known."""


class InstallModel(Model):
    op: Literal["install_model"] = "install_model"
    recipe: str = Field(min_length=1, max_length=1000)
    """A recipe's name, a folder (`project/name`, or an admin's absolute directory), or a hub id (`org/name`)."""
    project: str | None = None
    """Whose members see it. Left out: one's own; of an admin everybody's."""
