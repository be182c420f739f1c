"""The policy: its table, what it must never allow, and that queries filter as `sees` does."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, MetaData, String, Table, create_engine, literal, select

from cluster import access
from cluster.access import RELATIONS, enforcer, who_may
from cluster.db.tables import SessionRow
from cluster.models import User
from cluster.tenancy.table import table
from cluster.transaction import seen_by

NAMES, PROJECTS = ("ann", "bob"), ("red", "blue", "green")


@st.composite
def users(draw: st.DrawFn) -> User:
    projects = draw(st.lists(st.sampled_from(PROJECTS), unique=True))
    leads = [project for project in projects if draw(st.booleans())]
    role = draw(st.sampled_from(("user", "admin")))
    return User(name=draw(st.sampled_from(NAMES)), role=role, projects=projects, leads=leads)


def test_the_readmes_table_is_the_policy() -> None:
    readme = Path(access.__file__).parent / "tenancy" / "README.md"
    assert table() in readme.read_text(), "run python -m cluster.tenancy.table, and put it in"


def test_a_relation_includes_what_the_weaker_ones_may() -> None:
    for kind, action in {(kind, action) for _, kind, action in enforcer().get_policy()}:
        who = who_may(action, kind)
        assert who.admin or not any(who), f"an admin may not {action} {kind}"
        assert who.leader >= who.member >= who.anyone
        assert who.writer >= who.reader


def test_nobody_but_an_admin_changes_the_cluster_or_what_is_granted() -> None:
    for action, kind in (("change", "cluster"), ("limit", "project"), ("limit", "user"), ("create", "user"),
                         ("create", "project"), ("deactivate", "user"), ("register", "image")):  # fmt: skip
        assert [relation for relation, may in zip(RELATIONS, who_may(action, kind), strict=True) if may] == ["admin"]


def test_an_action_that_the_policy_does_not_know_is_an_error() -> None:
    with pytest.raises(ValueError, match="says nothing of"):
        who_may("sea", "work")


@given(users(), st.sampled_from(NAMES), st.sampled_from(PROJECTS))
def test_a_query_filters_as_sees_does(user: User, owner: str, project: str) -> None:
    sessions = Table("sessions", MetaData(), Column("user", String), Column("project", String))
    with create_engine("sqlite://").connect() as db:
        sessions.create(db)
        db.execute(sessions.insert().values(user=owner, project=project))
        found = db.scalar(select(literal(1)).select_from(SessionRow).where(seen_by(user))) is not None
    assert found == access.sees(user, owner, project)


@pytest.mark.parametrize("may", [*access.Who._fields, "", "as it is"])
@given(user=users(), owner=st.sampled_from(NAMES), project=st.sampled_from(PROJECTS))
def test_a_list_shows_what_sees_allows_whatever_the_policy_says(may: str, user: User, owner: str, project: str) -> None:
    told = access.who_may("see", "work") if may == "as it is" else access.Who(*(f == may for f in access.Who._fields))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(access, "who_may", lambda action, kind: told)
        assert access.seer(user)(owner, project) == access.sees(user, owner, project)


def test_leading_one_project_gives_nothing_in_another() -> None:
    lea = User(name="lea", projects=["red", "blue"], leads=["red"])
    assert access.leads(lea, "red")
    assert not access.leads(lea, "blue")
    assert access.owns(lea, "ann", "red")
    assert not access.owns(lea, "ann", "blue")
    assert access.sees(lea, "ann", "blue")
    assert not access.sees(lea, "ann", "green")


def test_a_grant_gives_what_it_says_and_no_more() -> None:
    pat = User(name="pat")
    assert not access.sees_folder(pat, "ann", "red")
    assert access.sees_folder(pat, "ann", "red", "read")
    assert not access.writes_folder(pat, "ann", "red", "read")
    assert access.writes_folder(pat, "ann", "red", "write")
