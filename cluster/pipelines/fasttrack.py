"""FastTrack's YAML (Backend.AI's pipelines: `tasks` with `dependencies`) in our own shape.

What there is nothing like here is said in a note, never dropped in silence. Amounts there are of one container, here
of the whole step.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from cluster.lines import Place, Source
from cluster.sentence import S, Sentence

PLAIN = ("", "custom task", "custom", "default", "batch")
"""Types of tasks that run a command."""
NOTHING: tuple[Any, ...] = (None, "", [], {}, 0, False, "0", "0g", "0b", "0m")
_TASK = {"name", "description", "type", "cluster_mode", "cluster_size", "command", "environment", "resources",
         "dependencies", "mounts", "skip", "continue_on_failure", "retry"}  # fmt: skip
_TOP = {"version", "name", "description", "environment", "tasks"}
_SECRET = re.compile(r"\$\{\{\s*secrets\.")


def is_one(data: Mapping[str, Any]) -> bool:
    """It has FastTrack's tasks, and no steps of ours."""
    return "tasks" in data and "steps" not in data


def translated(source: Source, groups: Collection[str] = ()) -> tuple[Source, list[Sentence]]:
    """The same in our shape, every value with its line in the text; and what could not be kept.

    `groups`: the resource groups that there are; one that is none of them is left out.
    """
    work = _Translation(source, groups)
    data = work.whole(source.data)
    return Source(source.name, data, work.lines, source.mistakes), work.notes()


class _Translation:
    def __init__(self, source: Source, groups: Collection[str]) -> None:
        self._source = source
        self._groups = groups
        self._lost: dict[str, list[str]] = {}
        """What is not kept -> of which tasks."""
        self._said: list[Sentence] = []
        self.lines: dict[Place, int] = {(): 1}

    def notes(self) -> list[Sentence]:
        lost = []
        for what, tasks in self._lost.items():
            named = ", ".join(dict.fromkeys(task for task in tasks if task))
            if named:
                lost.append(
                    S("Not kept, since there is nothing like it here: {what} of {tasks}.", what=what, tasks=named)
                )
            else:
                lost.append(S("Not kept, since there is nothing like it here: {what}.", what=what))
        return [*lost, *_once(self._said)]

    def _put(self, data: dict[str, Any], key: str, value: Any, place: Place, theirs: Place) -> None:
        """`data[key]`, which stands at `place` in our shape and at `theirs` in the text."""
        data[key] = value
        self.lines[(*place, key)] = self._source.line(theirs)

    def _lose(self, what: str, task: str, value: Any) -> None:
        if value not in NOTHING:
            self._lost.setdefault(what, []).append(task)

    # ── the whole ────────────────────────────────────────────────────────────────────────────────

    def whole(self, raw: dict[str, Any]) -> dict[str, Any]:
        data: dict[str, Any] = {}
        if "name" in raw:
            self._put(data, "name", self._name(raw["name"]), (), ("name",))
        if raw.get("description"):
            self._put(data, "description", raw["description"], (), ("description",))
        environment = raw.get("environment") or {}
        if isinstance(environment, dict) and environment.get("envs"):
            self._put(data, "env", self._variables(environment["envs"], ""), (), ("environment", "envs"))
        for key in sorted(map(str, raw.keys() - _TOP)):
            self._lose(key, "", raw.get(key, True))
        tasks = raw["tasks"]
        self._put(data, "steps", tasks, (), ("tasks",))
        if isinstance(tasks, list):
            data["steps"] = [self._task(task, i) for i, task in enumerate(tasks)]
        return data

    def _name(self, raw: Any) -> str:
        """Without what a name can't hold here."""
        name = re.sub(r"[\s/]+", "-", str(raw).strip())
        if name != raw:
            self._said.append(
                S("{name} is called {new} here: a name has no spaces or slashes.", name=str(raw), new=name)
            )
        return name

    def _variables(self, raw: Any, task: str) -> Any:
        """A mapping, or a list of `variable` and `value`."""
        if isinstance(raw, list) and all(isinstance(each, dict) for each in raw):
            raw = {each.get("variable"): each.get("value") for each in raw}
        if not isinstance(raw, dict):
            return raw
        env = {str(key): "" if value is None else str(value) for key, value in raw.items()}
        for key, value in env.items():
            if _SECRET.search(value):
                self._lose(f"{key}: {value}", task, value)
                env[key] = ""
        return env

    # ── a task ───────────────────────────────────────────────────────────────────────────────────

    def _task(self, raw: Any, i: int) -> Any:
        place, theirs = ("steps", i), ("tasks", i)
        self.lines[place] = self._source.line(theirs)
        if not isinstance(raw, dict):
            return raw
        step: dict[str, Any] = {}
        name = str(raw.get("name", ""))
        if "name" in raw:
            self._put(step, "name", self._name(raw["name"]), place, (*theirs, "name"))
        for key in ("description", "command"):
            if raw.get(key):
                self._put(step, key, raw[key], place, (*theirs, key))
        for key in sorted(map(str, raw.keys() - _TASK)):
            self._lose(key, name, _without_nothing(raw.get(key, True)))
        self._order(step, raw, place, theirs)
        self._place(step, raw, place, theirs)
        self._size(step, raw, place, theirs)
        self._kind(step, raw, name)
        return step

    def _order(self, step: dict[str, Any], raw: dict[str, Any], place: Place, theirs: Place) -> None:
        """What it waits for, whether it is left out, what its failure means."""
        after = raw.get("dependencies") or []
        if after:
            names = [re.sub(r"[\s/]+", "-", str(each).strip()) for each in after] if isinstance(after, list) else after
            self._put(step, "after", names, place, (*theirs, "dependencies"))
        if raw.get("skip"):
            self._put(step, "when", False, place, (*theirs, "skip"))
        if raw.get("continue_on_failure"):
            self._put(step, "may_fail", raw["continue_on_failure"], place, (*theirs, "continue_on_failure"))
        retry = raw.get("retry")
        if isinstance(retry, dict):
            attempts = retry.get("max_attempts", 1)
            retries = max(0, attempts - 1) if isinstance(attempts, int) else attempts
            self._put(step, "retries", retries, place, (*theirs, "retry"))
            self._put(step, "retry_delay", retry.get("delay", 0), place, (*theirs, "retry"))

    def _place(self, step: dict[str, Any], raw: dict[str, Any], place: Place, theirs: Place) -> None:
        """Where it runs, with what in its environment."""
        name, environment = str(raw.get("name", "")), raw.get("environment")
        environment = environment if isinstance(environment, dict) else {}
        at = (*theirs, "environment")
        if environment.get("image"):
            self._put(step, "image", environment["image"], place, (*at, "image"))
        if environment.get("envs"):
            self._put(step, "env", self._variables(environment["envs"], name), place, (*at, "envs"))
        group = environment.get("scaling-group", environment.get("scaling_group"))
        if group and group in self._groups:
            self._put(step, "resource_group", group, place, (*at, "scaling-group"))
        else:
            self._lose(f"scaling-group {group}", name, group)
        for key in sorted(map(str, environment.keys() - {"image", "envs", "scaling-group", "scaling_group"})):
            self._lose(f"environment.{key}", name, environment.get(key, True))
        self._mounts(step, raw.get("mounts"), place, theirs)

    def _mounts(self, step: dict[str, Any], raw: Any, place: Place, theirs: Place) -> None:
        """`folder:target`; here a folder is found under its own name."""
        raw = [raw] if isinstance(raw, str) else raw
        if not raw or not isinstance(raw, list | dict):
            return
        pairs = raw.items() if isinstance(raw, dict) else [str(each).partition(":")[::2] for each in raw]
        for folder, target in pairs:
            if target and str(target).strip("/").rpartition("/")[2] != folder:
                said = S(
                    "The folder {folder} is found at {path} here, not at {target}.",
                    folder=str(folder),
                    path=f"$HELMSMAN_FOLDERS/{folder}",
                    target=str(target),
                )
                self._said.append(said)
        self._put(step, "mounts", [str(folder) for folder, _ in pairs], place, (*theirs, "mounts"))

    def _size(self, step: dict[str, Any], raw: dict[str, Any], place: Place, theirs: Place) -> None:
        """Amounts of one container, times how many there are."""
        size = raw.get("cluster_size") or 1
        many = size if isinstance(size, int) and size > 1 else 1
        if many > 1 and raw.get("cluster_mode") == "multi-node":
            self._put(step, "node_count", size, place, (*theirs, "cluster_size"))
        elif many > 1:
            self._lose(f"cluster_size {many} on one node", str(raw.get("name", "")), many)
        amounts, at = raw.get("resources"), (*theirs, "resources")
        for key, value in amounts.items() if isinstance(amounts, dict) else ():
            ours = _RESOURCES.get(str(key))
            if ours is not None:
                self._put(step, ours, _times(value, many), place, (*at, str(key)))
            else:
                self._lose(f"resources.{key}", str(raw.get("name", "")), value)

    def _kind(self, step: dict[str, Any], raw: dict[str, Any], name: str) -> None:
        """A task that does something else than run a command is left out, and that is said."""
        kind = str(raw.get("type") or "").strip()
        if kind.lower() not in PLAIN:
            self._said.append(S("The task {name} is of type {type} and is left out here.", name=name, type=kind))
            step["when"] = False


_RESOURCES = {"cpu": "cpu", "mem": "memory", "cuda.shares": "gpu", "cuda.device": "gpu"}


def _times(value: Any, many: int) -> Any:
    """ "16g" twice is "32g"; a placeholder or nonsense stays as it is."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", str(value))
    if many == 1 or not found:
        return value
    return f"{float(found[1]) * many:g}{found[2]}"


def _without_nothing(value: Any) -> Any:
    return {k: v for k, v in value.items() if v not in NOTHING} if isinstance(value, dict) else value


def _once(said: list[Sentence]) -> list[Sentence]:
    return list({str(each): each for each in said}.values())
