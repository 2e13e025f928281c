"""Work on many hosts: whose result is whose, how long a host may take, and which exit code comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from mapd_client import Client, MapNotFound
from mapd_client.cli import fanout, outcomes
from mapd_client.cli.options import Options

HOSTS = ("/nowhere/a", "/nowhere/b", "/nowhere/c")


def options(*hosts: str, timeout: float | None = None) -> Options:
    return Options(hosts=hosts or HOSTS, timeout=timeout)


def test_results_are_in_the_order_of_the_hosts_whoever_ends_first() -> None:
    ended = {host: asyncio.Event() for host in HOSTS}
    used: list[str] = []

    async def last_first(client: Client, host: str) -> str:
        del client
        for behind in HOSTS[HOSTS.index(host) + 1 :]:
            await ended[behind].wait()
        ended[host].set()
        return host

    def use(found: Mapping[str, str]) -> None:
        used.extend(found)

    assert fanout.on_each(options(), last_first, use) == outcomes.OK
    assert used == [*HOSTS]


@pytest.mark.parametrize("said_by", ["option", "context"])
def test_a_host_has_as_long_as_was_said(
    said_by: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[contexts.edges]\nhosts = ["/nowhere/a", "/nowhere/b"]\ntimeout = 0.03\n')
    monkeypatch.setenv("MAPD_CONFIG", str(config))

    async def stuck(client: Client, host: str) -> None:
        del client
        if host == "/nowhere/b":
            await asyncio.Event().wait()

    given = options(*HOSTS[:2], timeout=0.03) if said_by == "option" else Options(context="edges")
    assert fanout.on_each(given, stuck, lambda _: None) == outcomes.SOME_HOSTS
    assert "/nowhere/b: no answer within 0.03 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("each", "code"),
    [
        ((0, 0, 0), outcomes.OK),
        ((3, 3, 3), outcomes.NOT_FOUND),
        ((0, 3, 0), outcomes.SOME_HOSTS),
        ((3, 6, 6), outcomes.SOME_HOSTS),
        ((None, None, None), outcomes.NOT_FOUND),
        ((0, None, 0), outcomes.SOME_HOSTS),
    ],
)
def test_the_code_is_the_one_that_all_have(each: Sequence[int | None], code: int) -> None:
    """None: the work fails with MapNotFound."""
    left = iter(each)

    async def work(client: Client) -> int:
        del client
        one = next(left)
        if one is None:
            raise MapNotFound("open flows: no such map")
        return one

    assert fanout.codes(options(), work) == code
