"""Who a client is taken for, and what it is told that it may do: as much as a refusal would tell, and no more."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import pytest

import mapd_client
from mapd.daemon import running
from mapd_api.reasons import Reason
from mapd_client import U32, U64, Client
from tests.support.daemon import Place, environment

POLICY = """
contact = "ops@example.org"

[principals.admin]

[principals.web]
[principals.web.quotas]
maps = 3
map_bytes = "1MiB"
ops_per_second = 1000

[principals.reader]
users = [41001]

[[rules]]
name = "own"
who = ["web"]
role = "owner"
owners = ["self"]

[[rules]]
name = "readers"
who = ["reader"]
role = "viewer"
names = ["web/flows"]

[[rules]]
name = "some-keys"
who = ["reader"]
verbs = ["list", "write"]
names = ["web/flows"]
key_prefixes = ["0a"]

[[rules]]
name = "no-secrets"
effect = "deny"
who = ["reader"]
role = "admin"
names = ["*/secret"]
"""


@dataclass(frozen=True)
class Three:
    """A client for each principal. Root may open every socket, so each is what its socket says."""

    admin: Client
    web: Client
    reader: Client
    place: Place


@pytest.fixture
async def three(place: Place) -> AsyncGenerator[Three]:
    async with (
        running(place.config(policy=POLICY)) as ready,
        mapd_client.connect(str(ready.servers.sockets["admin"])) as admin,
        mapd_client.connect(str(ready.servers.sockets["web"])) as web,
        mapd_client.connect(str(ready.servers.sockets["reader"])) as reader,
    ):
        for name in ("flows", "secret"):
            async with web.create_map(name, "hash", key=U32, value=U64, max_entries=8):
                pass
        yield Three(admin, web, reader, place)


async def test_each_is_told_who_it_is_and_what_fixed_that(three: Three) -> None:
    web = await three.web.whoami()
    assert (web.name, web.namespace, web.roles, web.contact) == ("web", "web", ("owner",), "ops@example.org")
    assert web.attested_by == f"socket:{three.place.runtime_dir}/web/mapd.sock"
    assert (await three.reader.whoami()).roles == ("viewer",)
    admin = await three.admin.whoami()
    assert (admin.name, admin.roles, admin.policy_version) == ("admin", ("admin",), web.policy_version)


async def test_each_is_told_what_it_may_have_and_has(three: Three) -> None:
    async with three.web.open_map("flows"):
        shares = (await three.web.whoami()).shares
    assert (shares["maps"].limit, shares["maps"].used) == (3, 2)
    assert shares["map_bytes"].limit == 1 << 20
    assert 0 < shares["map_bytes"].used < 1 << 20
    assert shares["handles"].used == 1
    assert shares["streams"].used == 1, "the session that its handle belongs to"
    assert shares["ops_per_second"].limit == 1_000
    assert (await three.admin.whoami()).shares["maps"].limit is None


async def test_what_may_be_done_is_told_without_doing_it(three: Three) -> None:
    assert await three.web.explain("write", "flows")
    assert await three.web.explain("create", "web/new")
    denied = await three.web.explain("create", "other/new")
    assert not denied
    assert (
        "you are 'web', and no rule of the policy allows you create here; ask ops@example.org" in denied.text
    )
    assert [info.name async for info in three.web.list_maps()] == ["web/flows", "web/secret"]


async def test_some_keys_are_no_permission_unless_one_of_them_is_asked_about(three: Three) -> None:
    some = await three.reader.explain("write", "web/flows")
    assert (bool(some), some.by_key) == (False, True)
    assert "keys that begin with 0a" in some.text
    assert await three.reader.explain("write", "web/flows", key=bytes([0x0A, 0, 0, 0]))
    assert not await three.reader.explain("write", "web/flows", key=bytes(4))
    with pytest.raises(mapd_client.SizeMismatch, match="the key has 3 bytes, and keys of this map have 4"):
        await three.reader.explain("write", "web/flows", key=bytes(3))


async def test_a_map_that_one_may_not_know_of_is_answered_as_one_that_is_not_there(three: Three) -> None:
    said: list[str] = []
    for name in ("web/secret", "web/absent"):
        with pytest.raises(mapd_client.MapNotFound) as caught:
            await three.reader.explain("read", name)
        assert caught.value.reason is Reason.MAP_NOT_FOUND
        said.append(str(caught.value).replace(name, "NAME"))
    assert said[0] == said[1]


async def test_no_rule_is_named_to_those_it_concerns_and_every_one_to_who_administers(three: Three) -> None:
    own = await three.reader.explain("delete", "web/flows")
    assert "some-keys" not in own.text
    about = await three.admin.explain("write", "web/flows", as_principal="reader")
    assert '"some-keys"' in about.text
    assert about.by_key
    denied = await three.admin.explain("read", "web/secret", as_principal="reader")
    assert '"no-secrets"' in denied.text
    assert not denied


async def test_asking_about_others_takes_the_right_to_administer(three: Three) -> None:
    with pytest.raises(mapd_client.PermissionDenied) as caught:
        await three.web.explain("read", "web/flows", as_principal="reader")
    assert caught.value.reason is Reason.POLICY


async def test_questions_that_are_none_are_refused(three: Three) -> None:
    with pytest.raises(mapd_client.Misuse, match="explain 'fly': no such right; one of list, read"):
        await three.web.explain("fly", "flows")
    with pytest.raises(mapd_client.MapNotFound):
        await three.web.explain("read", "absent")


async def test_the_daemon_itself_can_be_asked_about(three: Three) -> None:
    assert await three.admin.explain("admin", None)
    assert "the daemon itself" in (await three.web.explain("admin", None)).text


async def mapctl(three: Three, principal: str, *arguments: str) -> tuple[int, str]:
    """Exit code and standard output of mapctl, as one principal."""
    address = str(three.place.runtime_dir / principal / "mapd.sock")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from mapd_client.cli import main; main()",
        *arguments,
        "--address",
        address,
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_mapctl_says_who_one_is(three: Three) -> None:
    code, said = await mapctl(three, "web", "whoami")
    lines = dict(line.strip().split(maxsplit=1) for line in said.splitlines())
    assert (code, lines["principal"], lines["roles"]) == (0, "web", "owner")
    assert (lines["maps"], lines["dumps"]) == ("2 of 3", "0 of 2")
    code, said = await mapctl(three, "reader", "whoami", "-o", "ndjson")
    record = json.loads(said)
    assert (code, record["principal"], record["shares"]["maps"]) == (0, "reader", {"limit": 64, "used": 0})


async def test_mapctl_says_what_one_can_do_and_its_exit_code_says_it_too(three: Three) -> None:
    assert await mapctl(three, "web", "can", "write", "flows") == (0, "yes: web may write web/flows\n")
    code, said = await mapctl(three, "reader", "can", "delete", "web/flows")
    assert (code, said.startswith("no: ")) == (4, True)
    code, said = await mapctl(three, "reader", "can", "write", "web/flows")
    assert (code, said.startswith("for some keys: ")) == (4, True)
    code, said = await mapctl(three, "reader", "can", "write", "web/flows", "0x0a000000", "-o", "ndjson")
    assert (code, json.loads(said)["allowed"]) == (0, True)
    code, said = await mapctl(three, "admin", "can", "read", "web/secret", "--principal", "reader")
    assert (code, "no-secrets" in said) == (4, True)
