"""What is asked when something is missing, and what is said when a name is unknown: a sentence for each noun."""

from cluster.models import Names, S, Sentence

_WHICH: dict[str, Sentence] = {
    "session": S("Which session?"),
    "sessions": S("Which sessions?"),
    "node": S("Which node?"),
    "user": S("Which user?"),
    "project": S("Which project?"),
    "folder": S("Which folder?"),
    "image": S("Which image should it run?"),
    "command": S("What should it run?"),
    "resource_group": S("Which resource group?"),
    "gpu_model": S("Which GPU model?"),
    "model": S("Which model?"),
    "endpoint": S("Which endpoint?"),
    "pipeline": S("Which pipeline?"),
    "run": S("Which run?"),
    "finetune": S("Which fine-tune?"),
    "recipe": S("Which model should be installed?"),
    "name": S("What should it be called?"),
    "gpu": S("How many GPUs?"),
    "cpu": S("How many cores?"),
    "memory": S("How much memory?"),
    "replicas": S("How many replicas?"),
    "priority": S("Which priority, from 0 to 100?"),
    "quota": S("How large may it become?"),
    "permission": S("Read only, or read and write?"),
    "goal": S("What should the model learn?"),
    "resource": S("Of what: GPU, CPU, memory, storage, power or temperature?"),
    "metric": S("By which measure?"),
    "target": S("What is meant?"),
    "action": S("Which action?"),
    "model_parameters": S("How many parameters does the model have?"),
}

_UNKNOWN: dict[str, Sentence] = {
    "session": S("There is no session {said}."),
    "live_session": S("There is no session {said}."),
    "node": S("There is no node {said}."),
    "user": S("There is no user {said}."),
    "project": S("There is no project {said}."),
    "folder": S("There is no folder {said}."),
    "trashed_folder": S("There is no folder {said} in the trash."),
    "image": S("There is no image {said}."),
    "resource_group": S("There is no resource group {said}."),
    "gpu_model": S("No node here has a GPU of the model {said}."),
    "model": S("There is no model {said}."),
    "endpoint": S("There is no endpoint {said}."),
    "pipeline": S("There is no pipeline {said}."),
    "run": S("There is no run {said}."),
    "target": S("There is nothing called {said}."),
    "tool": S("There is no action called {said}."),
}


_WHICH_OF: dict[tuple[str, tuple[str, ...]], Sentence] = {
    ("goal", ("train", "serve")): S("Is the model to be trained or served?"),
}


def which(argument: str, allowed: tuple[str, ...] = ()) -> Sentence:
    """The question for a missing argument; `allowed` are its fixed values, if it has such."""
    if said := _WHICH_OF.get((argument, allowed)):
        return said
    return _WHICH.get(argument) or S("What should {argument} be?", argument=argument.replace("_", " "))


def unknown(noun: str, said: str) -> Sentence:
    """That nothing of this kind has the name."""
    return S(_UNKNOWN[noun].text, said=said[:80])


def choices(argument: str, names: Names) -> list[str]:
    """What an argument could be, where that is a name; at most nine."""
    known: dict[str, list[str]] = {
        "session": list(dict.fromkeys(names.sessions.values())),
        "sessions": list(dict.fromkeys(names.sessions.values())),
        "node": names.nodes,
        "user": names.users,
        "project": names.projects,
        "folder": names.folders,
        "image": names.images,
        "resource_group": names.resource_groups,
        "gpu_model": names.gpu_models,
        "model": names.models,
        "endpoint": names.endpoints,
        "pipeline": names.pipelines,
        "run": [*names.runs][:4] + names.pipelines,
    }
    return known.get(argument, [])[:9]
