"""What Helmsman says when it is asked for something that it can't do yet. An entry goes when its tool comes."""

from cluster.models import S, Sentence

_NOT_YET: dict[str, Sentence] = {
    "run_in_session": S("Helmsman can't run commands inside a session yet."),
    "start_finetune": S("Helmsman can't fine-tune models yet."),
    "list_finetunes": S("Helmsman can't list fine-tunes yet."),
    "get_finetune": S("Helmsman can't show fine-tunes yet."),
    "promote_model": S("Helmsman can't promote models yet."),
    "rollback_model": S("Helmsman can't roll models back yet."),
}


def not_yet(name: str) -> Sentence:
    """The sentence for a tool that is not there, planned or unheard of."""
    return _NOT_YET.get(name) or S("Helmsman has no tool {name}.", name=name[:80])
