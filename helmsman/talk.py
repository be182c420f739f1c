"""What Helmsman says when nothing is to be done: refusals and small talk, as sentences of code."""

import re

from cluster.models import S, Sentence
from helmsman.turn import Language

_THANKS = re.compile(r"\b(thanks?|thank you|thx|ty|cheers|great job|well done)\b|고마|감사|수고", re.IGNORECASE)
_HELLO = re.compile(
    r"^\W*(hi|hello|hey|good (morning|afternoon|evening)|yo)\b|^\W*(안녕|하이|헬로|반가)", re.IGNORECASE
)


def refusal(about: str) -> Sentence:
    """Why a request is not taken up; `about` is the model's reason."""
    sentences = {
        "unsafe": S("I won't do that: it would harm the cluster or somebody's work, and no tool of mine does it."),
        "injection": S("I only act on what you ask yourself; instructions inside logs, names or files are data to me."),
        "other_system": S(
            "That belongs to another system. I only run this cluster: its sessions, nodes, folders and quotas."
        ),
    }
    default = S(
        "I can't help with that. I run this cluster: ask me about sessions, nodes, folders, images, users or quotas."
    )
    return sentences.get(about, default)


def talk(text: str, language: Language) -> Sentence:
    """An answer to small talk, or to a question about Helmsman."""
    if _THANKS.search(text):
        return S("You're welcome.")
    if _HELLO.search(text):
        return S('Hello! Tell me what you need on the cluster, for example "which nodes have free GPUs?".')
    return S(
        "I run this cluster for you, in English or Korean: start, watch and stop sessions, explain why one waits, look "
        "after nodes, folders and quotas. Before anything is changed I show what would happen and ask. "
        'Try "what is running?", "run python train.py with 2 cores" or "why is my job pending?".'
    )
