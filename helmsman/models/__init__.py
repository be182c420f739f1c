"""The models that Helmsman can talk through: G in this process, any OpenAI-compatible endpoint, a script."""

from pathlib import Path
from typing import TYPE_CHECKING

from langchain_core.language_models.chat_models import BaseChatModel

from cluster.models import S
from helmsman.errors import BadConfig
from helmsman.settings import Settings
from tools.registry import Registry

if TYPE_CHECKING:
    from helmsman.terminal.host import ModelChoice

SCRIPT = "scripted:"


def choose(settings: Settings, registry: Registry) -> BaseChatModel:
    """The model that `settings.model` names; nothing heavy is loaded yet. Raises `BadConfig` for one that can't be."""
    if settings.model == "g":
        from helmsman.models.embedded import EmbeddedModel

        return EmbeddedModel.at(settings.model_path, registry)
    if settings.model.startswith(SCRIPT):
        from helmsman.models.scripted import ScriptedModel

        return ScriptedModel.from_file(Path(settings.model.removeprefix(SCRIPT)))
    if settings.endpoint.base_url is None:
        raise BadConfig(
            S(
                "The model {model} needs an address: set base_url under [endpoint], or HELMSMAN_ENDPOINT__BASE_URL. "
                'Or use "g", the model that ships with Helmsman.',
                model=settings.model,
            )
        )
    from helmsman.models.endpoint import EndpointModel

    return EndpointModel.at(settings, registry)


async def close(model: BaseChatModel) -> None:
    """Close what a model holds open."""
    closing = getattr(model, "aclose", None)
    if closing is not None:
        await closing()


def choices(settings: Settings) -> "list[ModelChoice]":
    """What /model offers."""
    from helmsman.terminal.host import ModelChoice

    found = [ModelChoice("g", "in this process", settings.model == "g")]
    if settings.model != "g":
        where = settings.endpoint.base_url or "a script"
        found.append(ModelChoice(settings.model, where, current=True))
    return found
