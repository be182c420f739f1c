"""API tokens: shown once, kept as a hash, good until they are revoked, have expired or their owner is gone."""

import asyncio
import hashlib
from datetime import timedelta
from typing import Any

import httpx
import pytest

from cluster.api.app import create_app
from cluster.client import Client
from cluster.db.tables import TokenRow
from cluster.errors import NotAllowed, NotAuthenticated, NotFound
from cluster.models import DeactivateUser, NewToken, ReactivateUser, TokenMade, Undo
from cluster.simulator.lab import Lab
from cluster.tenancy import tokens


def bearing(lab: Lab, token: str) -> Client:
    return Client.connect("http://lab", token, httpx.ASGITransport(create_app(lab.core)))


async def closed(client: Client) -> bool:
    try:
        await client.whoami()
    except NotAuthenticated:
        return True
    return False


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every look at Argon2, as it happens."""
    seen: list[str] = []
    real = tokens._verified

    def counted(hashed: str, secret: str) -> bool:
        seen.append(secret)
        return real(hashed, secret)

    monkeypatch.setattr(tokens, "_verified", counted)
    return seen


def forget(lab: Lab) -> None:
    """As after a restart of the server."""
    lab.core.tokens = tokens.Tokens(lab.core)


async def test_a_token_acts_as_its_owner_until_it_is_revoked(lab: Lab) -> None:
    made = await lab.ann.make_token(NewToken(name="notebook"))
    assert made.token.startswith(f"hm_{made.id}_")
    assert (await bearing(lab, made.token).whoami()).name == "ann"
    assert [(t.id, t.name) for t in (await lab.ann.tokens()).items if t.name] == [(made.id, "notebook")]
    await lab.ann.revoke_token(made.id)
    assert await closed(bearing(lab, made.token))


async def test_it_is_shown_once_and_what_is_kept_does_not_tell_it(lab: Lab) -> None:
    made = await lab.ann.make_token(NewToken())
    secret = made.token.rpartition("_")[2]
    await lab.core.save()
    everything = b"".join(path.read_bytes() for path in lab.core.data_dir.glob("cluster.db*"))
    assert made.id.encode() in everything
    assert secret.encode() not in everything
    assert hashlib.sha256(made.token.encode()).hexdigest().encode() not in everything
    listed = (await lab.ann.tokens()).model_dump_json() + (await lab.boss.audit()).model_dump_json()
    assert secret not in listed


async def test_the_journal_says_who_made_and_revoked_which_token_for_whom(lab: Lab) -> None:
    made = await lab.boss.make_token(NewToken(user="ann", name="ci", days=7))
    await lab.ann.revoke_token(made.id)
    revoked, created = (await lab.boss.audit()).items[:2]
    assert (created.user, created.action, created.targets) == ("boss", "create_token", [made.id])
    assert created.operation.model_dump()["user"] == "ann"
    assert (revoked.user, revoked.action, revoked.targets) == ("ann", "revoke_token", [made.id])


async def test_undo_of_making_one_revokes_it(lab: Lab) -> None:
    made = await lab.ann.make_token(NewToken())
    await lab.ann.execute(Undo())
    assert await closed(bearing(lab, made.token))


async def test_only_an_admin_has_to_do_with_the_tokens_of_others(lab: Lab) -> None:
    made = await lab.boss.make_token(NewToken())
    with pytest.raises(NotAllowed):
        await lab.ann.make_token(NewToken(user="bob"))
    with pytest.raises(NotAllowed):
        await lab.ann.make_token(NewToken(user=""))
    with pytest.raises(NotAllowed):
        await lab.ann.tokens(user="boss")
    with pytest.raises(NotFound) as another:
        await lab.ann.revoke_token(made.id)
    with pytest.raises(NotFound) as none:
        await lab.ann.revoke_token("0" * 12)
    assert str(another.value).replace(made.id, "") == str(none.value).replace("0" * 12, "")
    assert (await bearing(lab, made.token).whoami()).name == "boss"


async def test_a_token_for_the_agents_opens_their_routes_only(lab: Lab) -> None:
    made = await lab.boss.make_token(NewToken(user=""))
    with pytest.raises(NotAllowed):
        await bearing(lab, made.token).whoami()


async def test_it_ends_when_it_was_said_to(lab: Lab) -> None:
    made = await lab.ann.make_token(NewToken(days=1))
    client = bearing(lab, made.token)
    lab.clock.advance(timedelta(hours=23))
    assert not await closed(client)
    lab.clock.advance(timedelta(hours=1))
    assert await closed(client)


async def test_a_deactivated_persons_tokens_open_nothing_until_they_are_let_in(lab: Lab) -> None:
    made = await lab.ann.make_token(NewToken())
    client = bearing(lab, made.token)
    assert not await closed(client)
    await lab.boss.execute(DeactivateUser(user="ann"))
    assert await closed(client)
    await lab.boss.execute(ReactivateUser(user="ann"))
    assert not await closed(client)


async def test_argon2_is_asked_once_for_a_token_however_many_come_with_it(lab: Lab, hashes: list[str]) -> None:
    made = await lab.ann.make_token(NewToken())
    forget(lab)
    clients = [bearing(lab, made.token) for _ in range(5)]
    assert {user.name for user in await asyncio.gather(*(client.whoami() for client in clients))} == {"ann"}
    await clients[0].whoami()
    assert len(hashes) == 1


async def test_what_has_not_our_shape_or_an_unknown_id_costs_no_hash(lab: Lab, hashes: list[str]) -> None:
    for wrong in ("x", "hm_", "hm_ffffffffffff_secret", "hm__", "a" * 10_000):
        assert await closed(bearing(lab, wrong))
    assert hashes == []


async def test_guessing_at_a_known_id_is_slowed_down_and_does_not_lock_its_owner_out(
    lab: Lab, hashes: list[str]
) -> None:
    made = await lab.ann.make_token(NewToken())
    for guess in range(tokens.MOST_WRONG + 5):
        assert await closed(bearing(lab, f"hm_{made.id}_{guess}"))
    assert len(hashes) == tokens.MOST_WRONG
    assert not await closed(bearing(lab, made.token))
    forget(lab)
    for guess in range(tokens.MOST_WRONG):
        await closed(bearing(lab, f"hm_{made.id}_{guess}"))
    with pytest.raises(NotAuthenticated, match="Too many wrong tokens"):
        await bearing(lab, made.token).whoami()
    lab.clock.advance(timedelta(minutes=2))
    assert not await closed(bearing(lab, made.token))


async def test_a_token_from_before_there_were_two_halves_still_opens(lab: Lab) -> None:
    old = "an-old-token-of-the-first-release"
    async with lab.core.db.write() as db:
        db.add(TokenRow(id=hashlib.sha256(old.encode()).hexdigest(), owner="ann"))
    assert (await bearing(lab, old).whoami()).name == "ann"


async def test_the_hash_of_an_old_token_is_no_token(lab: Lab) -> None:
    old = hashlib.sha256(b"an-old-token").hexdigest()
    async with lab.core.db.write() as db:
        db.add(TokenRow(id=old, owner="ann"))
    for thief in (old, f"hm_{old}_", f"hm_{old}_x"):
        assert await closed(bearing(lab, thief))


async def test_a_token_is_made_by_its_own_route_only(lab: Lab) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(lab.core)), base_url="http://lab") as http:
        header = {"Authorization": f"Bearer {lab.core.tokens.passing('ann')}"}
        body: dict[str, Any] = {"operation": {"op": "create_token", "name": "x"}}
        reply = await http.post("/v1/operations", headers=header, json=body)
        assert (reply.status_code, reply.json()["code"]) == (422, "invalid")
        shown = await http.post("/v1/operations", headers=header, json=body | {"dry_run": True})
        assert shown.json()["effects"][0]["kind"] == "creates"
    assert [t.name for t in (await lab.ann.tokens()).items] == [""]


async def test_a_token_made_is_whole(lab: Lab) -> None:
    made = await lab.ann.make_token(NewToken(name="x" * 100, days=1))
    assert isinstance(made, TokenMade)
    assert made.expires == lab.clock.now() + timedelta(days=1)
