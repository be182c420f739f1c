"""Do the names in a scenario hang together? Each check yields mistakes; none stops the others."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter

from cluster.lifecycle import HOLDING, LIVE
from cluster.sentence import S, Sentence
from cluster.simulator.scenario import MISSING, PipelineSpec, Scenario, SessionSpec, Spec
from cluster.simulator.source import Mistake, Place, Source


def unknown(kind: str, name: str, known: Iterable[str]) -> Sentence:
    """No such thing; with the nearest there is. `kind` is a word such as `node`."""
    near = get_close_matches(name, list(known), 1, 0.6)
    if near:
        return S("there is no {kind} {name} in this scenario; did you mean {near}?", kind=kind, name=name, near=near[0])
    return S("there is no {kind} {name} in this scenario", kind=kind, name=name)


@dataclass(slots=True)
class Checks:
    """The checks of one complete scenario (`complete.completed`)."""

    scenario: Scenario
    source: Source
    found: list[Mistake] = field(default_factory=list)

    def run(self) -> list[Mistake]:
        for section in ("resource_groups", "nodes", "projects", "users", "images", "models", "endpoints", "pipelines"):
            self._unique(getattr(self.scenario, section))
        self._unique_sessions()
        self._unique_folders()
        self._nodes()
        self._people()
        self._sessions()
        self._serving()
        self._quotas()
        self._faults()
        return self.found

    # ── plumbing ─────────────────────────────────────────────────────────────────────────────────

    def _say(self, at: Place, sentence: Sentence) -> None:
        self.found.append(Mistake(self.source.line(at), sentence))

    def _known(self, item: Spec, key: str, kind: str, names: Iterable[str | None], known: Sequence[str]) -> None:
        """Every one of `names`, which the file gives as `item.key`, is in `known`."""
        if (*item.at, key) not in self.source.lines:
            return
        for name in names:
            if name is not None and name != MISSING and name not in known:
                self._say((*item.at, key), unknown(kind, name, known))

    def _names(self, section: str) -> list[str]:
        return [item.name for item in getattr(self.scenario, section)]

    def _unique(self, items: Sequence[Spec]) -> None:
        self._twice((item, getattr(item, "name", MISSING)) for item in items)

    def _twice(self, named: Iterable[tuple[Spec, str]]) -> None:
        first: dict[str, Spec] = {}
        for item, name in named:
            if name == MISSING:
                continue
            if name in first:
                line = self.source.line((*first[name].at, "name"))
                self._say((*item.at, "name"), S("{name} is there already, in line {line}", name=name, line=line))
            first.setdefault(name, item)

    # ── names that must differ ───────────────────────────────────────────────────────────────────

    def _unique_sessions(self) -> None:
        """Ids differ; a user's live sessions have different names."""
        sessions = self.scenario.sessions
        self._twice((session, session.id) for session in sessions if session.id)
        live = [session for session in sessions if session.status in LIVE]
        for user in dict.fromkeys(session.user for session in live):
            self._unique([session for session in live if session.user == user])

    def _unique_folders(self) -> None:
        folders = [folder for folder in self.scenario.folders if not folder.trashed]
        for project in dict.fromkeys(folder.project for folder in folders):
            self._unique([folder for folder in folders if folder.project == project])

    # ── names that must exist ────────────────────────────────────────────────────────────────────

    def _nodes(self) -> None:
        groups = self._names("resource_groups")
        for node in self.scenario.nodes:
            self._known(node, "resource_group", "resource group", [node.resource_group], groups)
            if node.gpu_model and not node.gpu:
                self._say((*node.at, "gpu_model"), S("{node} has a GPU model, but no GPUs", node=node.name))

    def _people(self) -> None:
        projects, users = self._names("projects"), self._names("users")
        for user in self.scenario.users:
            self._known(user, "projects", "project", user.projects, projects)
        for folder in self.scenario.folders:
            self._known(folder, "project", "project", [folder.project], projects)
            self._known(folder, "owner", "user", [folder.owner], users)

    def _sessions(self) -> None:
        for session in self.scenario.sessions:
            self._session_names(session)
            self._session_nodes(session)

    def _session_names(self, session: SessionSpec) -> None:
        others = [name for each in self.scenario.sessions if each is not session for name in (each.name, each.id or "")]
        self._known(session, "user", "user", [session.user], self._names("users"))
        self._known(session, "project", "project", [session.project], self._names("projects"))
        self._known(session, "image", "image", [session.image], self._names("images"))
        self._known(session, "mounts", "folder", session.mounts, self._names("folders"))
        self._known(session, "depends_on", "session", session.depends_on, others)
        self._known(
            session, "resource_group", "resource group", [session.resource_group], self._names("resource_groups")
        )

    def _session_nodes(self, session: SessionSpec) -> None:
        key = "nodes" if session.nodes else "node"
        self._known(session, key, "node", session.on, self._names("nodes"))
        if session.on and session.status in HOLDING and len(session.on) != session.node_count:
            told, asked = len(session.on), session.node_count or 1
            self._say(
                (*session.at, key),
                S(
                    "{session} asks for {asked} nodes, but {told} are named",
                    session=session.name,
                    asked=asked,
                    told=told,
                ),
            )

    def _serving(self) -> None:
        projects, users = self._names("projects"), self._names("users")
        for endpoint in self.scenario.endpoints:
            self._known(endpoint, "model", "model", [endpoint.model], self._names("models"))
            self._known(endpoint, "project", "project", [endpoint.project], projects)
            self._known(endpoint, "user", "user", [endpoint.user], users)
            self._known(
                endpoint, "resource_group", "resource group", [endpoint.resource_group], self._names("resource_groups")
            )
        for pipeline in self.scenario.pipelines:
            self._known(pipeline, "project", "project", [pipeline.project], projects)
            self._known(pipeline, "user", "user", [pipeline.user], users)
            steps = [step.name for step in pipeline.steps]
            after = [name for step in pipeline.steps for name in step.after]
            self._known(pipeline, "steps", "step", after, steps)
            self._steps(pipeline)

    def _steps(self, pipeline: PipelineSpec) -> None:
        """At least one, each name once, and none that waits for itself."""
        names, at = [step.name for step in pipeline.steps], (*pipeline.at, "steps")
        if not names:
            self._say(at, S("{pipeline} has no steps", pipeline=pipeline.name))
        for name in dict.fromkeys(name for name in names if names.count(name) > 1):
            self._say(at, S("{pipeline} has two steps {step}", pipeline=pipeline.name, step=name))
        if found := _circle(pipeline):
            steps = " → ".join(found)
            self._say(at, S("these steps wait for each other in a circle: {steps}", steps=steps))

    def _quotas(self) -> None:
        for quota in self.scenario.quotas:
            if (quota.user is None) == (quota.project is None):
                self._say(quota.at, S("a quota is of a user or of a project"))
            self._known(quota, "user", "user", [quota.user], self._names("users"))
            self._known(quota, "project", "project", [quota.project], self._names("projects"))

    def _faults(self) -> None:
        sessions = [name for each in self.scenario.sessions for name in (each.name, each.id or "")]
        for fault in self.scenario.faults:
            wanted = "session" if fault.kind == "crash" else "node"
            if getattr(fault, wanted) is None:
                self._say(fault.at, S("a fault of kind {kind} needs a {wanted}", kind=fault.kind, wanted=wanted))
            self._known(fault, "node", "node", [fault.node], self._names("nodes"))
            self._known(fault, "session", "session", [fault.session], sessions)


def names_used(scenario: Scenario) -> Iterator[str]:
    """Every project that something belongs to."""
    for user in scenario.users:
        yield from user.projects
    for section in (scenario.folders, scenario.sessions, scenario.endpoints, scenario.pipelines, scenario.quotas):
        yield from (item.project for item in section if item.project)


def _circle(spec: PipelineSpec) -> list[str]:
    """Steps that wait for each other; empty when there are none."""
    graph: dict[str, list[str]] = {}
    for step in spec.steps:
        graph.setdefault(step.name, []).extend(step.after)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as e:
        found: list[str] = e.args[1][::-1]
        return found
    return []
