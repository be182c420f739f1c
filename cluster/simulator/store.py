"""A scenario's models, as rows of the model store."""

import re
from collections.abc import Iterator
from datetime import timedelta

from cluster.db.tables import ModelRow
from cluster.models import Card, Recipe
from cluster.serving.recipes import shipped
from cluster.serving.store import READY
from cluster.simulator.scenario import ModelSpec, Scenario

_COUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([kmbt]?)", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


def rows(scenario: Scenario) -> Iterator[ModelRow]:
    """Installed long ago, by an admin, for everybody."""
    admins = [user.name for user in scenario.users if user.role == "admin"] or [user.name for user in scenario.users]
    owner = admins[0] if admins else "system"
    since = (scenario.now - timedelta(days=30)).astimezone(scenario.now.tzinfo)
    for model in scenario.models:
        yield ModelRow(
            name=model.name,
            owner=owner,
            project=None,
            source=model.name,
            recipe=_recipe(model, scenario).model_dump(mode="json"),
            card=_card(model).model_dump(mode="json"),
            size=model.size or 0,
            state=READY,
            state_since=since,
            reasons=[],
            created=since,
        )


def _recipe(model: ModelSpec, scenario: Scenario) -> Recipe:
    """Served as its endpoints in the file are, else with vLLM."""
    book = shipped()
    said = [endpoint.runtime for endpoint in scenario.endpoints if endpoint.model == model.name]
    runtime = next((name for name in said if name and name in book.runtimes), "vllm")
    return Recipe.model_validate({"name": model.name, "runtime": runtime, "launch": book.launch(runtime)})


def _card(model: ModelSpec) -> Card:
    return Card(
        parameters=count_of(model.parameters),
        format=model.format,
        license=model.license,
        base_model=model.base_model,
        text=model.description or "",
    )


def count_of(text: str | None) -> int | None:
    """`7b`, `568M`, `1.5b` as a number; None for anything else."""
    match = _COUNT.fullmatch((text or "").strip())
    return round(float(match[1]) * _UNITS[match[2].lower()]) if match else None
