"""What a scenario leaves out is filled in here: ranges, ids, defaults, and sections that follow from the rest."""

from collections.abc import Callable, Iterable
from datetime import timedelta
from difflib import get_close_matches
from hashlib import sha256
from typing import TypeVar

from cluster.lifecycle import ENDED, HOLDING
from cluster.models import SessionResult, SessionState
from cluster.scheduler.fleet import matches_model
from cluster.sentence import S, Sentence
from cluster.simulator import serving
from cluster.simulator.checks import names_used
from cluster.simulator.scenario import (
    MISSING,
    GroupSpec,
    ImageSpec,
    ModelSpec,
    NodeSpec,
    ProjectSpec,
    Scenario,
    SessionSpec,
    Spec,
    UserSpec,
    expand,
)
from cluster.simulator.source import Mistake, Source

P = TypeVar("P", bound=Spec)

GIB = 2**30
DEFAULT_GROUP = "default"
"""Of nodes that name none."""
SECTIONS = (
    "resource_groups",
    "projects",
    "users",
    "images",
    "folders",
    "models",
    "endpoints",
    "pipelines",
    "quotas",
    "faults",
)


def completed(scenario: Scenario, source: Source, mistakes: list[Mistake], notes: list[Sentence]) -> Scenario:
    """The scenario with nothing left out; every item knows its place in the file."""
    for section in SECTIONS:
        for i, item in enumerate(getattr(scenario, section)):
            item.placed((section, i))
    scenario.nodes = _expanded(scenario.nodes, "nodes", source, mistakes)
    scenario.sessions = _expanded(scenario.sessions, "sessions", source, mistakes)
    _implied(scenario)
    _strangers(scenario, notes)
    _folders(scenario)
    serving.complete(scenario, member)
    for i, session in enumerate(scenario.sessions):
        _session(scenario, session, i)
    return scenario


def _expanded(items: list[P], section: str, source: Source, mistakes: list[Mistake]) -> list[P]:
    found: list[P] = []
    for i, item in enumerate(items):
        name: str = item.name  # type: ignore[attr-defined]
        try:
            found += [item.model_copy(update={"name": each}).placed((section, i)) for each in expand(name)]
        except ValueError:
            mistakes.append(
                Mistake(source.line((section, i, "name")), S("the range in {name} makes no names", name=name))
            )
    return found


# ── sections that were left out ──────────────────────────────────────────────────────────────────


def _implied(scenario: Scenario) -> None:
    """A section that is not there is made of what the others speak of; one that is there is complete."""
    nodes, sessions = scenario.nodes, scenario.sessions
    _imply(scenario.resource_groups, (node.resource_group for node in nodes), lambda name: GroupSpec(name=name))
    _imply(scenario.projects, names_used(scenario), lambda name: ProjectSpec(name=name))
    _imply(scenario.images, (s.image for s in sessions), lambda name: ImageSpec(name=name))
    _imply(scenario.models, (e.model for e in scenario.endpoints), lambda name: ModelSpec(name=name))
    _imply(scenario.users, (s.user for s in sessions), lambda name: UserSpec(name=name))
    if DEFAULT_GROUP not in [group.name for group in scenario.resource_groups]:
        loose = [node for node in nodes if node.resource_group == DEFAULT_GROUP]
        scenario.resource_groups += [GroupSpec(name=DEFAULT_GROUP)] if loose or not nodes else []
    if not scenario.projects:
        scenario.projects.append(ProjectSpec(name="default"))
    if not any(user.role == "admin" for user in scenario.users):
        scenario.users.append(UserSpec(name=_free("admin", [user.name for user in scenario.users]), role="admin"))


def _imply(section: list[P], names: Iterable[str | None], make: Callable[[str], P]) -> None:
    if not section:
        section += [make(name) for name in dict.fromkeys(names) if name]


def _free(name: str, taken: list[str]) -> str:
    return name if name not in taken else _free(f"{name}-1", taken)


def _strangers(scenario: Scenario, notes: list[Sentence]) -> None:
    """A session of somebody who isn't among the users, and whose name is no slip of one that is: taken as a user."""
    for session in scenario.sessions:
        known = [user.name for user in scenario.users]
        if session.user in (*known, MISSING) or get_close_matches(session.user, known, 1, 0.6):
            continue
        scenario.users.append(UserSpec(name=session.user, projects=[session.project] if session.project else []))
        notes.append(S("{user} is not among the users, but has sessions: taken as a user", user=session.user))


def _folders(scenario: Scenario) -> None:
    for folder in scenario.folders:
        folder.owner = folder.owner or member(scenario, folder.project)
        folder.project = folder.project or project_of(scenario, folder.owner)
        if folder.size is None:
            folder.size = sum(file.size for file in folder.files)


def member(scenario: Scenario, project: str | None) -> str:
    """Somebody of the project, else an admin."""
    members = [user for user in scenario.users if project in user.projects]
    return (members or [user for user in scenario.users if user.role == "admin"])[0].name


def project_of(scenario: Scenario, user: str | None) -> str:
    """The first project of the user, else the first there is."""
    known = [project.name for project in scenario.projects]
    own = [name for each in scenario.users if each.name == user for name in each.projects if name in known]
    return (own or known)[0]


# ── sessions ─────────────────────────────────────────────────────────────────────────────────────


def _session(scenario: Scenario, session: SessionSpec, i: int) -> None:
    session.id = session.id or "s-" + sha256(f"{i}/{session.name}".encode()).hexdigest()[:5]
    session.project = session.project or project_of(scenario, session.user)
    session.resource_group = session.resource_group or _group(scenario, session)
    session.node_count = session.node_count or len(session.on) or 1
    session.cpu = session.cpu or float(session.node_count)
    session.memory = session.memory or session.node_count * GIB
    if session.status in ENDED and session.result is None:
        session.result = _RESULTS[session.status]
    _times(session, i)


_RESULTS = {
    SessionState.TERMINATED: SessionResult.SUCCESS,
    SessionState.ERROR: SessionResult.FAILURE,
    SessionState.CANCELLED: SessionResult.CANCELLED,
}


def _group(scenario: Scenario, session: SessionSpec) -> str:
    """The group of its node, else the first with such nodes, else the first."""
    named = [node.resource_group for node in scenario.nodes if node.name in session.on]
    fitting = [node.resource_group for node in scenario.nodes if _could(node, session)]
    return (named or fitting or [group.name for group in scenario.resource_groups] or ["default"])[0]


def _could(node: NodeSpec, session: SessionSpec) -> bool:
    suits = session.gpu_model is None or matches_model(session.gpu_model, node.gpu_model)
    return suits and (node.gpu > 0) == (session.gpu > 0)


def _times(session: SessionSpec, i: int) -> None:
    """Plausible times where the file gives none: submitted, then started, then ended, all before the clock."""
    ended, began = session.status in ENDED, session.status in (*HOLDING, *ENDED)
    if ended and session.ended is None:
        session.ended = session.started / 2 if isinstance(session.started, timedelta) else timedelta(minutes=-30)
    if began and session.started is None and session.status != SessionState.CANCELLED:
        session.started = (session.ended or timedelta(0)) - timedelta(hours=1)
    if session.submitted is None:
        session.submitted = (session.started or session.ended or timedelta(minutes=-10)) - timedelta(
            minutes=2, seconds=-i % 60
        )
