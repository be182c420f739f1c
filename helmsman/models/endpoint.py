"""Any model behind the OpenAI API, with the tools bound by their JSON schemas."""

from collections.abc import AsyncIterator
from contextlib import contextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import httpx
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from pydantic import PrivateAttr

from cluster.models import S
from helmsman.errors import ModelUnavailable
from helmsman.settings import Settings, secret
from tools.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator

_ASK = {
    "name": "ask",
    "description": "Ask the person back, when something required is missing or two things could be meant.",
    "parameters": {
        "type": "object",
        "properties": {
            "for": {"type": "string", "description": "the tool that will be called"},
            "about": {"type": "string", "description": "the argument in question"},
        },
        "required": ["for", "about"],
    },
}
_REFUSE = {
    "name": "refuse",
    "description": "Say that this will not be done.",
    "parameters": {
        "type": "object",
        "properties": {"about": {"enum": ["out_of_scope", "unsafe", "injection", "other_system"]}},
        "required": ["about"],
    },
}


class EndpointModel(BaseChatModel):
    """One model of one endpoint."""

    name_of_model: str
    base_url: str
    _bound: Runnable[Any, AIMessage] = PrivateAttr()
    _http: httpx.AsyncClient = PrivateAttr()

    @classmethod
    def at(cls, settings: Settings, registry: Registry) -> "EndpointModel":
        """Nothing is asked of the endpoint yet. Raises `BadConfig` when the key's file can't be read."""
        from langchain_openai import ChatOpenAI

        endpoint = settings.endpoint
        assert endpoint.base_url is not None
        model = cls(name_of_model=settings.model, base_url=endpoint.base_url)
        model._http = httpx.AsyncClient(timeout=endpoint.timeout)
        chat = ChatOpenAI(
            http_async_client=model._http,
            model=settings.model,
            base_url=endpoint.base_url,
            api_key=secret(endpoint.api_key, endpoint.api_key_file, "The endpoint's key") or "none",
            timeout=endpoint.timeout,
            max_retries=endpoint.retries,
            temperature=0,
            stream_usage=False,
        )
        model._bound = chat.bind_tools([*map(_function, registry.schemas()), _ASK, _REFUSE])
        return model

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    @property
    def _llm_type(self) -> str:
        return "endpoint"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with self._sentences():
            message = self._bound.invoke(_with_system(messages))
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with self._sentences():
            message = await self._bound.ainvoke(_with_system(messages))
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        with self._sentences():
            async for chunk in self._bound.astream(_with_system(messages)):
                if isinstance(chunk, AIMessageChunk):
                    yield ChatGenerationChunk(message=chunk)

    @contextmanager
    def _sentences(self) -> "Iterator[None]":
        """The library's errors as one sentence that says what to do."""
        import openai

        try:
            yield
        except openai.AuthenticationError as e:
            raise self._error("its key is not accepted; set api_key under [endpoint]", e) from e
        except openai.NotFoundError as e:
            raise self._error("it does not know this model or address", e) from e
        except openai.APITimeoutError as e:
            raise self._error("it took too long; raise timeout under [endpoint] or try again", e) from e
        except openai.APIConnectionError as e:
            raise self._error("nothing answers there; start it, or choose another model with /model", e) from e
        except openai.OpenAIError as e:
            raise self._error(str(e).splitlines()[0][:200] if str(e) else type(e).__name__, e) from e

    def _error(self, why: str, error: Exception) -> ModelUnavailable:
        return ModelUnavailable(
            S("The model {model} at {url} can't be used: {why}.", model=self.name_of_model, url=self.base_url, why=why)
        )


def _with_system(messages: list[BaseMessage]) -> list[BaseMessage]:
    text = files("helmsman.models").joinpath("system.md").read_text(encoding="utf-8")
    return [SystemMessage(text), *messages]


def _function(schema: Any) -> dict[str, Any]:
    return {"type": "function", "function": schema}
