"""Users, projects and quotas: who may, what it means for what runs and waits, and how it is put back."""

import httpx
import pytest

from cluster.api.app import create_app
from cluster.client import Client
from cluster.errors import NotAuthenticated
from cluster.models import (
    AddProjectMember,
    CreateFolder,
    CreateProject,
    CreateUser,
    DeactivateUser,
    Outcome,
    ReactivateUser,
    RegisterImage,
    RemoveProjectMember,
    SetQuota,
    StartSession,
    Undo,
)
from cluster.simulator.lab import Lab


def as_user(lab: Lab, name: str) -> Client:
    return Client.connect("http://lab", lab.core.tokens.passing(name), httpx.ASGITransport(create_app(lab.core)))


def said(outcome: Outcome) -> list[str]:
    assert outcome.refused == []
    return [str(e.message) for e in outcome.effects] + [str(w) for w in outcome.warnings]


def why(outcome: Outcome) -> str:
    assert outcome.refused, "it was done"
    return f"{outcome.refused[0].code}: {outcome.refused[0].message}"


async def names(client: Client) -> list[str]:
    return [s.name for s in (await client.sessions()).items]


# ── users ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_new_user_is_in_their_project_and_can_work_at_once(lab: Lab) -> None:
    await lab.node("n1")
    plan = await lab.boss.preview(CreateUser(name="dana", email="dana@lab.example", project="red"))
    assert said(plan) == ["User dana is created.", "dana is in project red."]
    assert "dana" not in [u.name for u in (await lab.boss.users()).items]
    await lab.boss.execute(CreateUser(name="dana", email="dana@lab.example", project="red"), expect=plan.digest)
    dana = as_user(lab, "dana")
    assert (await dana.whoami()).projects == ["red"]
    assert (await dana.execute(StartSession(command="x", name="hers"))).session is not None


@pytest.mark.parametrize("name", ["", " ", "a b", "../etc", "-rf", "a" * 64, "system", "a\x00b", "new\nline", "."])
async def test_what_can_not_be_a_name_is_refused(lab: Lab, name: str) -> None:
    if name:
        assert why(await lab.boss.execute(CreateUser(name=name))).startswith("invalid: ")
        assert why(await lab.boss.execute(CreateProject(name=name))).startswith("invalid: ")


async def test_the_same_name_in_other_letters_is_taken(lab: Lab) -> None:
    await lab.boss.execute(CreateUser(name="민호"))
    decomposed = "\u1106\u1175\u11ab\u1112\u1169"
    assert why(await lab.boss.execute(CreateUser(name=decomposed))) == "conflict: There is a user 민호 already."
    assert why(await lab.boss.execute(CreateUser(name="ANN"))) == "conflict: There is a user ann already."
    assert why(await lab.boss.execute(CreateProject(name="Red"))) == "conflict: There is a project red already."


async def test_deactivating_stops_what_runs_cancels_what_waits_and_closes_the_door(lab: Lab) -> None:
    node = await lab.node("n1", cpu=2)
    await lab.ann.execute(StartSession(command="x", name="runs", cpu=2))
    await node.obey()
    await lab.ann.execute(StartSession(command="x", name="waits", cpu=2))
    plan = await lab.boss.preview(DeactivateUser(user="ann"))
    assert {(e.kind, e.target, e.owner) for e in plan.effects if e.kind == "stops"} == {
        ("stops", "runs", "ann"),
        ("stops", "waits", "ann"),
    }
    assert "sessions that ran can't come back" in str(plan.undo)
    assert await names(lab.ann) == ["runs", "waits"]
    await lab.boss.execute(DeactivateUser(user="ann"), expect=plan.digest)
    with pytest.raises(NotAuthenticated):
        await lab.ann.whoami()
    states = {s.name: s.state.value for s in (await lab.boss.sessions(user="ann")).items}
    assert states == {"runs": "terminating"}
    assert why(await lab.boss.execute(DeactivateUser(user="ann"))) == "conflict: ann is deactivated already."


async def test_undo_lets_them_in_and_puts_what_waited_back(lab: Lab) -> None:
    node = await lab.node("n1", cpu=2)
    await lab.bob.execute(StartSession(command="x", name="full", cpu=2))
    await node.obey()
    await lab.ann.execute(StartSession(command="x", name="waits", cpu=2))
    await lab.boss.execute(DeactivateUser(user="ann"))
    done = await lab.boss.execute(Undo())
    assert said(done) == ["ann can log in again; their tokens work as before.", "waits is back in the queue."]
    assert await names(lab.ann) == ["full", "waits"]


async def test_the_last_admin_stays(lab: Lab) -> None:
    refused = await lab.boss.execute(DeactivateUser(user="boss"))
    assert why(refused) == "conflict: boss is the last admin; make another one first."
    await lab.boss.execute(CreateUser(name="chief", role="admin"))
    chief = as_user(lab, "chief")
    assert said(await chief.execute(DeactivateUser(user="boss")))
    assert why(await chief.execute(DeactivateUser(user="chief"))).startswith("conflict: chief is the last admin")
    assert said(await chief.execute(ReactivateUser(user="boss")))


# ── projects ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_project_comes_with_its_quota_and_goes_by_undo_while_it_is_empty(lab: Lab) -> None:
    await lab.boss.execute(CreateProject(name="green", gpu=8, description="trees"))
    found = {p.name: p for p in (await lab.boss.projects()).items}
    assert found["green"].description == "trees"
    assert (await lab.boss.quotas(project="green")).items[0].gpu == 8
    await lab.boss.execute(AddProjectMember(project="green", user="ann"))
    await lab.boss.execute(Undo())
    await lab.boss.execute(Undo(action="a-0001"))
    assert "green" not in [p.name for p in (await lab.boss.projects()).items]


async def test_a_project_that_was_used_is_not_removed(lab: Lab) -> None:
    await lab.boss.execute(CreateProject(name="green"))
    await lab.boss.execute(CreateFolder(name="data", project="green"))
    refused = await lab.boss.execute(Undo(action="a-0001"))
    assert why(refused) == "conflict: Project green has folders; it can't be removed any more."


async def test_who_leads_a_project_says_who_is_in_it_and_no_more(lab: Lab) -> None:
    await lab.boss.execute(AddProjectMember(project="red", user="ann", role="project_admin"))
    assert (await lab.ann.whoami()).leads == ["red"]
    assert said(await lab.ann.execute(AddProjectMember(project="red", user="eve"))) == [
        "eve is in project red and may use its quota."
    ]
    assert why(await lab.ann.execute(AddProjectMember(project="blue", user="bob"))).startswith("not_found: ")
    assert why(await lab.ann.execute(SetQuota(project="red", gpu=99))).startswith("not_allowed: ")
    assert why(await lab.ann.execute(CreateUser(name="dana", project="red"))).startswith("not_allowed: ")
    assert why(await lab.bob.execute(AddProjectMember(project="red", user="eve"))).startswith("not_")


async def test_the_role_in_the_cluster_makes_one_lead_all_own_projects_only(lab: Lab) -> None:
    await lab.boss.execute(CreateUser(name="lead", role="project_admin", project="red"))
    lead = as_user(lab, "lead")
    assert (await lead.whoami()).leads == ["red"]
    await lab.node("n1")
    await lab.ann.execute(StartSession(command="x", name="anns"))
    await lab.eve.execute(StartSession(command="x", name="eves"))
    assert await names(lead) == ["anns"]


async def test_a_role_changes_and_comes_back(lab: Lab) -> None:
    change = AddProjectMember(project="red", user="ann", role="admin")
    assert said(await lab.boss.execute(change)) == ["ann is an admin of project red now."]
    assert why(await lab.boss.execute(change)) == "conflict: ann is in project red already."
    assert said(await lab.boss.execute(Undo())) == ["ann is a plain member of project red now."]
    assert (await lab.ann.whoami()).leads == []


async def test_whoever_leaves_a_project_leaves_its_queue_and_its_nodes(lab: Lab) -> None:
    node = await lab.node("n1", cpu=2)
    await lab.ann.execute(CreateFolder(name="notes"))
    await lab.ann.execute(StartSession(command="x", name="runs", cpu=2))
    await node.obey()
    await lab.ann.execute(StartSession(command="x", name="waits", cpu=2))
    plan = await lab.boss.preview(RemoveProjectMember(project="red", user="ann"))
    assert [e.target for e in plan.effects if e.kind == "stops"] == ["runs", "waits"]
    assert "Folders of ann in red stay theirs: notes." in said(plan)
    await lab.boss.execute(RemoveProjectMember(project="red", user="ann"), expect=plan.digest)
    assert (await lab.ann.whoami()).projects == []
    refused = await lab.ann.execute(StartSession(command="x", project="red"))
    assert why(refused) == "not_found: There is no project red that you are in."
    assert why(await lab.ann.execute(StartSession(command="x"))).startswith("not_found: You are in no project yet")
    done = await lab.boss.execute(Undo())
    assert "waits is back in the queue." in said(done)
    assert (await lab.ann.whoami()).projects == ["red"]


# ── quotas ───────────────────────────────────────────────────────────────────────────────────────


async def test_the_preview_of_a_quota_says_who_is_held_back_and_nothing_stays_of_it(lab: Lab) -> None:
    node = await lab.node("n1", cpu=2)
    await lab.bob.execute(StartSession(command="x", name="full", cpu=2))
    await node.obey()
    await lab.ann.execute(StartSession(command="x", name="mine", cpu=2))
    plan = await lab.boss.preview(SetQuota(user="ann", cpu=1))
    assert "ann may use 1 cores (before: ∞)." in said(plan)
    assert "mine, which waits, is held back by the quota." in said(plan)
    await lab.core.schedule_pass()
    assert (await lab.ann.session("mine")).state.value == "pending"
    await lab.boss.execute(SetQuota(user="ann", cpu=1), expect=plan.digest)
    await lab.core.schedule_pass()
    assert (await lab.ann.session("mine")).state.value == "held"
    back = await lab.boss.preview(SetQuota(user="ann", unlimited=["cpu"]))
    assert "mine is not held back any more." in said(back)
    await lab.boss.execute(Undo())
    await lab.core.schedule_pass()
    assert (await lab.ann.session("mine")).state.value == "pending"


async def test_a_larger_quota_lets_start_who_was_held_back(lab: Lab) -> None:
    await lab.node("n1", cpu=4)
    await lab.boss.execute(SetQuota(project="red", cpu=2))
    await lab.bob.execute(StartSession(command="x", name="his", cpu=2))
    await lab.ann.execute(StartSession(command="x", name="mine", cpu=2))
    assert (await lab.ann.session("mine")).state.value == "held"
    plan = await lab.boss.preview(SetQuota(project="red", cpu=4))
    assert any("mine" in text and "starts now on n1" in text for text in said(plan))


async def test_what_is_used_above_a_new_limit_is_told(lab: Lab) -> None:
    node = await lab.node("n1", cpu=4)
    await lab.ann.execute(StartSession(command="x", name="runs", cpu=4))
    await node.obey()
    plan = await lab.boss.preview(SetQuota(project="red", cpu=2, sessions=0))
    assert any(text.startswith("red uses 4 cores, more than the new limit") for text in said(plan))
    assert any(text.startswith("red has 1 sessions") for text in said(plan))


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        (SetQuota(gpu=1), "invalid: Say whose quota"),
        (SetQuota(user="ann", project="red", gpu=1), "invalid: Say whose quota"),
        (SetQuota(user="ann"), "invalid: Say what is limited"),
        (SetQuota(user="ann", gpu=1, unlimited=["gpu"]), "invalid: gpu can't have a limit and none"),
        (SetQuota(user="ann", borrow_gpu=1), "invalid: Only projects lend"),
        (SetQuota(user="nobody", gpu=1), "not_found: There is no user nobody."),
        (SetQuota(user="ann", unlimited=["gpu"]), "conflict: The quota of ann is so already"),
    ],
)
async def test_a_quota_that_makes_no_sense_is_refused(lab: Lab, op: SetQuota, reason: str) -> None:
    assert why(await lab.boss.execute(op)).startswith(reason)


async def test_a_cohort_and_what_may_be_borrowed_are_set_and_put_back(lab: Lab) -> None:
    await lab.boss.execute(SetQuota(project="red", cpu=1, borrow_cpu=2, cohort="paints"))
    await lab.boss.execute(SetQuota(project="blue", cpu=3, cohort="paints"))
    await lab.node("n1", cpu=4)
    await lab.ann.execute(StartSession(command="x", name="big", cpu=3))
    assert (await lab.ann.session("big")).state.value == "scheduled"
    quota = (await lab.ann.quotas(project="red")).items[0]
    assert (quota.cpu, quota.borrow_cpu) == (1, 2)
    done = await lab.boss.execute(Undo(action="a-0001"))
    assert "red is in no cohort any more: it neither lends nor borrows." in said(done)
    assert {p.name: p.cohort for p in (await lab.boss.projects()).items} == {"blue": "paints", "red": None}


# ── images ───────────────────────────────────────────────────────────────────────────────────────


async def test_an_image_is_registered_moved_and_put_back(lab: Lab) -> None:
    await lab.boss.execute(RegisterImage(image="lab/train:1", registry="ghcr.io"))
    assert [(i.name, i.registry) for i in (await lab.ann.images()).items] == [("lab/train:1", "ghcr.io")]
    assert why(await lab.boss.execute(RegisterImage(image="lab/train:1"))).startswith("conflict: ")
    await lab.boss.execute(RegisterImage(image="lab/train:1", registry="registry.lab:5000"))
    await lab.boss.execute(Undo())
    assert [i.registry for i in (await lab.ann.images()).items] == ["ghcr.io"]
    await lab.boss.execute(Undo(action="a-0001"))
    assert (await lab.ann.images()).items == []
    assert why(await lab.boss.execute(RegisterImage(image="--privileged"))).startswith("invalid: ")
    assert why(await lab.ann.execute(RegisterImage(image="x"))).startswith("not_allowed: ")
