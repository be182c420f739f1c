"""Views as terminal text. See README.md."""

from helmsman.render.clean import clean, one_line
from helmsman.render.look import Language, Look, language_of_locale, standard_look
from helmsman.render.plan import card, how_to_answer, word_to_type
from helmsman.render.views import bounded, render

__all__ = [
    "Language",
    "Look",
    "bounded",
    "card",
    "clean",
    "how_to_answer",
    "language_of_locale",
    "one_line",
    "render",
    "standard_look",
    "word_to_type",
]
