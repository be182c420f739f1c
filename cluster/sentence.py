"""A sentence for people: an English template and its parameters, kept apart so that it can be translated."""

from pydantic import BaseModel, ConfigDict

Param = str | int | float


class Sentence(BaseModel):
    """What a person reads. `text` is the English template (`str.format` style) and the key of the translation."""

    model_config = ConfigDict(frozen=True)

    text: str
    params: dict[str, Param] = {}

    def __str__(self) -> str:
        return self.text.format(**self.params)


def S(text: str, /, **params: Param) -> Sentence:
    """Mark `text` as a sentence for people; the literal is the key in `tools/locale`."""
    return Sentence(text=text, params=params)
