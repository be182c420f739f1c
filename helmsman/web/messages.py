"""The shapes of the web's requests and answers. The events themselves are `helmsman.events.Event`."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from cluster.models import Sentence
from helmsman.events import Decision


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Thread(_Message):
    """A conversation in the list; `title` is its first line, `updated` ISO 8601."""

    id: str
    title: str
    updated: str
    turns: int


class ThreadOpened(_Message):
    """Answer to POST /api/threads."""

    id: str


class Line(_Message):
    """Body of send: a request, or the answer to an open question."""

    text: str = Field(min_length=1, max_length=20_000)


class Verdict(_Message):
    """Body of decide. `digest` is the one that came with the plan; `edited` (with "edit") maps call id -> arguments."""

    question: str = Field(max_length=200)
    digest: str = Field(max_length=200)
    decision: Decision
    comment: str | None = Field(default=None, max_length=5_000)
    edited: dict[str, dict[str, Any]] | None = Field(default=None, max_length=100)


class Taken(_Message):
    """Answer to send, decide and stop: it was taken; what comes of it is on the event stream."""

    thread: str


class Problem(BaseModel):
    """RFC 9457. `detail` is the sentence in the asker's language, `sentence` its template and parameters."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    sentence: Sentence
