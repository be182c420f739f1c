"""How a conversation becomes model text, and model text becomes calls.

The one leaf that training (`finetune`) and serving (`helmsman`) share, so that the two cannot drift apart.
It knows neither torch nor LangChain; of the other packages only `tools.catalogue`.
"""

from helmsman.prompts.conversation import PSEUDO_CALLS, Answer, Call, ResultRows, Turn, Value

__all__ = ["PSEUDO_CALLS", "Answer", "Call", "ResultRows", "Turn", "Value"]
