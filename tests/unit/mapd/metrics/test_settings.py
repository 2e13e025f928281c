"""[metrics]: off unless an address is given, of this host alone unless it is asked for, and nothing half meant."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mapd.config import Config, ConfigError, parse
from mapd.metrics.settings import address_of

GUIDE = Path(__file__).parents[4] / "docs" / "how-to" / "metrics.md"
CONTENT = "[[metrics.contents]]\nmap = 'web/flows'\nname = 'flow_packets_total'\nhelp = 'Packets.'\ntype = 'counter'\n"


def test_the_guide_shows_configurations_that_are_some() -> None:
    shown = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    metrics = [parse(text, "metrics.md").metrics for text in shown]
    assert any(one.listen for one in metrics)
    assert any(one.contents for one in metrics)


def test_metrics_are_off_and_say_nothing_of_any_map() -> None:
    metrics = Config().metrics
    assert (metrics.listen, metrics.port, metrics.maps, metrics.contents) == ("", None, (), ())


@pytest.mark.parametrize(
    ("listen", "host", "port"),
    [("127.0.0.1:9433", "127.0.0.1", 9433), ("[::1]:9433", "::1", 9433), ("127.1.2.3:0", "127.1.2.3", 0)],
)
def test_an_address_of_this_host_is_listened_on(listen: str, host: str, port: int) -> None:
    metrics = parse(f"[metrics]\nlisten = '{listen}'\n", "test").metrics
    assert metrics.port == port
    assert address_of(metrics.listen) == (host, port)


@pytest.mark.parametrize("listen", ["0.0.0.0:9433", "[::]:9433", "10.0.0.1:9433", "[2001:db8::1]:9433"])
def test_an_address_that_others_reach_is_refused_unless_it_is_asked_for(listen: str) -> None:
    with pytest.raises(ConfigError, match=r"\[metrics\] listen: .* set beyond_loopback = true"):
        parse(f"[metrics]\nlisten = '{listen}'\n", "test")
    asked = f"[metrics]\nlisten = '{listen}'\nbeyond_loopback = true\n"
    assert parse(asked, "test").metrics.listen == listen


@pytest.mark.parametrize("listen", ["localhost:9433", "127.0.0.1", ":9433", "::1:9433", "127.0.0.1:70000"])
def test_what_is_no_address_with_a_port_is_refused(listen: str) -> None:
    with pytest.raises(ConfigError, match="no IP address with a port"):
        parse(f"[metrics]\nlisten = '{listen}'\n", "test")


def test_a_content_as_it_is_written() -> None:
    text = CONTENT + (
        "cpu = 'cpu'\nvalue = {offset = 8, size = 4, signed = true, scale = 1e-9}\n"
        "labels = [{name = 'saddr', size = 4, decoder = 'ip'},"
        " {name = 'proto', offset = 12, size = 1, static_map = {6 = 'tcp', 17 = 'udp'}}]\n"
    )
    (content,) = parse(text, "test").metrics.contents
    assert (content.value.offset, content.value.size, content.value.scale) == (8, 4, 1e-9)
    assert [(label.name, label.of, label.offset, label.size, label.decoder) for label in content.labels] == [
        ("saddr", "key", 0, 4, "ip"),
        ("proto", "key", 12, 1, "uint"),
    ]
    assert content.labels[1].static_map == {"6": "tcp", "17": "udp"}
    assert content.max_series == 1_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CONTENT.replace("flow_packets_total", "mapd_flows_total"), "begins with none of mapd_"),
        (CONTENT.replace("flow_packets_total", "Flows_total"), "of a-z, 0-9 and '_'"),
        (CONTENT.replace("flow_packets_total", "flow_packets"), "a counter ends with _total"),
        (CONTENT.replace("'counter'", "'gauge'"), "no other name does"),
        (CONTENT.replace("'counter'", "'histogram'"), "Invalid enum value 'histogram'"),
        (CONTENT + CONTENT, "another metric of that name"),
        (CONTENT.replace("web/flows", "flows"), "neither 'namespace/name' nor a pin's absolute path"),
        (CONTENT + "value = {size = 3}\n", "1, 2, 4 or 8 bytes, and size is 3"),
        (CONTENT + "value = {offset = -1}\n", "Expected `int` >= 0"),
        (
            CONTENT + "labels = [{name = 'a', size = 5, decoder = 'ip'}]\n",
            "ip has 4 or 16 bytes, and size is 5",
        ),
        (CONTENT + "labels = [{name = 'a', size = 3}]\n", "uint has 1 or 2 or 4 or 8 bytes, and size is 3"),
        (CONTENT + "labels = [{name = 'le', size = 4}]\n", "label 'le'"),
        (CONTENT + "labels = [{name = 'A', size = 4}]\n", "label 'A'"),
        (CONTENT + "cpu = 'a'\nlabels = [{name = 'a', size = 4}]\n", "no two alike"),
        (CONTENT + "labels = [{name = 'a', size = 4, decoder = 'ksym'}]\n", "Invalid enum value 'ksym'"),
        ("[metrics]\nport = 9433\n", "unknown field `port`"),
        ("[metrics]\nevery_s = 0\n", "Expected `float` >= 0.1"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_says_where(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "mapd.toml")
    assert said in str(caught.value)
    assert str(caught.value).startswith("mapd.toml: ")
