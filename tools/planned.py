"""What Helmsman says when it is asked for something that it can't do yet. An entry goes when its tool comes."""

from cluster.models import S, Sentence

_NOT_YET: dict[str, Sentence] = {
    "restart_session": S("Helmsman can't restart sessions yet; stop it and start it again."),
    "run_in_session": S("Helmsman can't run commands inside a session yet."),
    "set_session_priority": S("Helmsman can't change a session's priority yet."),
    "move_node": S("Helmsman can't move nodes between resource groups yet."),
    "get_utilization": S("Helmsman can't show utilization over time yet; the cluster's state shows it as it is now."),
    "diagnose": S("Helmsman can't diagnose the cluster yet; look at its state and events."),
    "start_finetune": S("Helmsman can't fine-tune models yet."),
    "list_finetunes": S("Helmsman can't list fine-tunes yet."),
    "get_finetune": S("Helmsman can't show fine-tunes yet."),
    "promote_model": S("Helmsman can't promote models yet."),
    "rollback_model": S("Helmsman can't roll models back yet."),
    "design_cluster": S("Helmsman can't design clusters yet."),
}


def not_yet(name: str) -> Sentence:
    """The sentence for a tool that is not there, planned or unheard of."""
    return _NOT_YET.get(name) or S("Helmsman has no tool {name}.", name=name[:80])
