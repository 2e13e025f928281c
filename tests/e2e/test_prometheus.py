"""Prometheus itself: what promtool says of the page, and what a server that scrapes it answers."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mapd_client import U32, U64, connect
from tests.e2e.test_metrics import ON, port_of, read
from tests.support.daemon import Place, daemon_process

pytestmark = pytest.mark.prometheus

WAIT_S = 30.0
GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "metrics.md"
CONTENT = (
    "maps = ['*']\n[[metrics.contents]]\nmap = 'admin/flows'\nname = 'flow_packets_total'\nhelp = 'Packets.'\n"
    "type = 'counter'\nlabels = [{name = 'source', size = 4}]\n"
)


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip("no prometheus: apt-get install prometheus")
    return found


def promtool(*words: str, said: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [program("promtool"), *words], input=said, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


async def fill(place: Place) -> None:
    async with (
        connect(str(place.socket)) as client,
        client.create_map("flows", "hash", key=U32, value=U64, max_entries=64) as flows,
    ):
        await flows.update_many({number: 10 * number for number in range(1, 4)})


async def test_promtool_has_nothing_to_say_against_the_page(place: Place) -> None:
    with daemon_process(place, extra=ON + CONTENT) as daemon:
        await fill(place)
        page = read(port_of(daemon))[1]
    assert promtool("check", "metrics", said=page) == (0, "", "")
    assert promtool("check", "metrics", said=page.replace("# TYPE", "# TYP"))[0] != 0, (
        "it says nothing of anything"
    )


@contextmanager
def scraping(folder: Path, target: str) -> Generator[str]:
    """A server that scrapes ``target`` ten times a second; its address."""
    config = {
        "global": {"scrape_interval": "100ms", "scrape_timeout": "100ms"},
        "scrape_configs": [{"job_name": "mapd", "static_configs": [{"targets": [target]}]}],
    }
    file = folder / "prometheus.yml"
    file.write_text(json.dumps(config))  # which is YAML
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = (
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    )
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen([program("prometheus"), *flags], stderr=log) as server,
    ):
        try:
            yield address
        finally:
            server.terminate()


def ask(address: str, query: str) -> dict[str, float]:
    """Values by their labels; {} while there are none. A query that is none of PromQL raises HTTPError."""
    url = f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(url, timeout=WAIT_S) as answer:
            found: Any = json.load(answer)["data"]["result"]
    except urllib.error.URLError as error:
        if isinstance(error, urllib.error.HTTPError) and error.code != 503:
            raise
        return {}  # it does not listen yet, or is not ready
    kept = (
        {k: v for k, v in one["metric"].items() if k not in {"__name__", "instance", "job"}} for one in found
    )
    return {
        json.dumps(labels, sort_keys=True): float(one["value"][1])
        for labels, one in zip(kept, found, strict=True)
    }


def answered(address: str, query: str, due: dict[str, float] | None = None) -> dict[str, float]:
    """The same, once there is an answer; once it is ``due``, for on a busy machine a scrape may come too late."""
    deadline = time.monotonic() + WAIT_S
    while not (found := ask(address, query)) or found != (due or found):
        assert time.monotonic() < deadline, (query, found)
        time.sleep(0.1)  # a server that scrapes tells nobody
    return found


async def test_a_server_scrapes_a_daemon_and_answers_the_queries_of_the_guide(
    place: Place, tmp_path: Path
) -> None:
    queries = re.findall(r"```promql\n(.*?)\n```", GUIDE.read_text(), re.DOTALL)
    assert len(queries) >= 5
    with daemon_process(place, extra=ON + CONTENT) as daemon:
        await fill(place)
        with scraping(tmp_path, port_of(daemon)) as server:
            answered(server, "up", {"{}": 1.0})
            contents = {f'{{"source": "{number}"}}': 10.0 * number for number in range(1, 4)}
            answered(server, "sum by (source) (flow_packets_total)", contents)
            full = {'{"map": "admin/flows", "type": "hash"}': 3 / 64}
            answered(server, 'mapd_map_entries{map="admin/flows"} / mapd_map_max_entries', full)
            for query in queries:
                ask(server, query)
            with pytest.raises(urllib.error.HTTPError):
                ask(server, queries[0] + ")")
