"""The configuration: every key has a default, nothing unknown is accepted, and each refusal names its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from mapd import config
from mapd.access.policy import holder
from mapd.config import DEFAULT_POLICY, Config, ConfigError, load, parse


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, "mapd.toml")
    return str(caught.value)


def test_an_empty_file_is_the_defaults() -> None:
    found = parse("", "mapd.toml")
    assert found == Config()
    assert found.daemon.runtime_dir == "/run/mapd"
    assert found.daemon.bpffs == "/sys/fs/bpf"
    assert found.daemon.grace_s == 5.0
    assert found.pool.queue == 4_096
    assert (found.pool.inline_elements, found.pool.cpu, found.server.max_connection_age_s) == (0, -1, 0.0)
    assert found.daemon.policy == "/etc/mapd/policy.toml"


def test_every_key_can_be_set() -> None:
    text = """
        [daemon]
        runtime_dir = "/tmp/run"
        policy = "/tmp/policy.toml"
        state_dir = "/tmp/state"
        bpffs = "/mnt/bpf"
        pin_root = "names"
        pin_roots = ["/mnt/bpf/xdp"]
        grace_s = 0
        log_format = "json"
        log_level = "debug"
        [pool]
        point_threads = 1
        bulk_threads = 64
        slow_threads = 3
        queue = 1
        inline_elements = 64
        [server]
        max_connection_age_s = 3600
        max_connection_age_grace_s = 0.5
    """
    found = parse(text, "mapd.toml")
    assert found.daemon.pin_roots == ("/mnt/bpf/xdp",)
    assert (found.pool.point_threads, found.pool.bulk_threads, found.pool.queue) == (1, 64, 1)
    assert found.pool.inline_elements == 64
    assert (found.server.max_connection_age_s, found.server.max_connection_age_grace_s) == (3600.0, 0.5)
    assert found.daemon.policy == "/tmp/policy.toml"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[daemon]\nruntimedir = '/run'", "unknown field `runtimedir` - at `$.daemon`"),
        ("[deamon]", "unknown field `deamon`"),
        ("[daemon]\ngrace_s = -1", "`$.daemon.grace_s`"),
        ("[daemon]\ngrace_s = 'soon'", "`$.daemon.grace_s`"),
        ("[daemon]\nlog_format = 'xml'", "Invalid enum value 'xml' - at `$.daemon.log_format`"),
        ("[pool]\npoint_threads = 0", "`$.pool.point_threads`"),
        ("[pool]\nbulk_threads = 65", "`$.pool.bulk_threads`"),
        ("[pool]\nqueue = 0", "`$.pool.queue`"),
        ("[daemon", "Expected ']'"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(text: str, words: str) -> None:
    message = refusal(text)
    assert message.startswith("mapd.toml: ")
    assert words in message


@pytest.mark.parametrize(
    "text", ["[principals.admin]\nusers = ['alice']", "[principals.web]", "principals = 5"]
)
def test_principals_are_sent_to_the_policys_file(text: str) -> None:
    message = refusal(text)
    assert message.startswith("mapd.toml: [principals] is read from the policy's file alone")
    assert '[daemon] policy = "/etc/mapd/policy.toml"' in message
    assert "move its tables there, as they are" in message


def test_a_file_is_read_and_named_in_refusals(tmp_path: Path) -> None:
    file = tmp_path / "mapd.toml"
    file.write_text("[daemon]\ngrace_s = 1.5")
    assert load(file).daemon.grace_s == 1.5
    file.write_text("[daemon]\ngrace = 1.5")
    with pytest.raises(ConfigError, match=f"{file}: .*`grace`"):
        load(file)


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"a = \x00"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "mapd.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=str(file)):
        load(file)


def test_without_a_path_the_default_place_is_read_if_there_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mapd.toml"
    monkeypatch.setattr(config, "DEFAULT_PATH", file)
    assert load(None) == Config()
    file.write_text("[pool]\nqueue = 7")
    assert load(None).pool.queue == 7


def test_paths_are_kept_in_their_shortest_spelling() -> None:
    text = """
        [daemon]
        runtime_dir = "/run/mapd/"
        state_dir = "//var//lib/./mapd"
        bpffs = "/sys/fs/bpf/"
        pin_roots = ["/sys/fs/bpf/", "/mnt//bpf/x/"]
    """
    found = parse(text, "mapd.toml").daemon
    assert (found.runtime_dir, found.state_dir, found.bpffs) == ("/run/mapd", "/var/lib/mapd", "/sys/fs/bpf")
    assert found.pin_roots == ("/sys/fs/bpf", "/mnt/bpf/x")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("runtime_dir = 'run/mapd'", "[daemon] runtime_dir: 'run/mapd' is not absolute"),
        ("state_dir = ''", "[daemon] state_dir: '' is not absolute"),
        ("policy = 'policy.toml'", "[daemon] policy: 'policy.toml' is not absolute"),
        ("bpffs = '/sys/../sys/fs/bpf'", "[daemon] bpffs: '/sys/../sys/fs/bpf' has a part '..'"),
        ("pin_roots = ['/sys/fs/bpf', 'xdp']", "[daemon] pin_roots: 'xdp' is not absolute"),
        ("pin_roots = ['/mnt/..']", "[daemon] pin_roots: '/mnt/..' has a part '..'"),
        ("pin_roots = ['/']", "[daemon] pin_roots: '/' is no folder of a bpffs"),
        ('state_dir = "/var/\\u0000"', "[daemon] state_dir: '/var/\\x00' has a NUL"),
        ("pin_root = 'a/b'", "[daemon] pin_root: 'a/b' must be one folder's name"),
        ("pin_root = '..'", "[daemon] pin_root: '..' must be one folder's name"),
        ("pin_root = ''", "[daemon] pin_root: '' must be one folder's name"),
        ("pin_root = 'mapd.d'", "[daemon] pin_root: 'mapd.d' must be one folder's name"),
    ],
)
def test_a_path_that_could_not_be_used_is_refused(text: str, words: str) -> None:
    assert words in refusal(f"[daemon]\n{text}")


TLS = "certificate = '/c//server.pem'\nkey = '/c/key.pem'\nclient_ca = '/c/./ca.pem'\n"


def test_tcp_is_off_unless_an_address_is_given() -> None:
    assert parse("", "mapd.toml").tcp.listen == ()
    found = parse(f"[tcp]\nlisten = ['0.0.0.0:7433', '[::1]:0']\n{TLS}", "mapd.toml").tcp
    assert found.listen == ("0.0.0.0:7433", "[::1]:0")
    assert (found.certificate, found.key, found.client_ca) == ("/c/server.pem", "/c/key.pem", "/c/ca.pem")


@pytest.mark.parametrize("missing", ["certificate", "key", "client_ca"])
def test_tcp_without_certificates_is_refused(missing: str) -> None:
    lines = [line for line in TLS.splitlines() if not line.startswith(missing)]
    message = refusal("\n".join(["[tcp]", "listen = ['0.0.0.0:7433']", *lines]))
    assert message == (
        f"mapd.toml: [tcp] {missing}: needed with listen: mapd speaks TLS only, with certificates on both sides"
    )


@pytest.mark.parametrize(
    "address",
    [
        "7433",
        "localhost:7433",
        "192.0.2.1",
        "::1:7433",
        "[127.0.0.1]:7433",
        "127.0.0.1:65536",
        "127.0.0.1:",
        "unix:/x:1",
    ],
)
def test_tcp_listens_on_ip_addresses_with_ports_only(address: str) -> None:
    message = refusal(f"[tcp]\nlisten = ['{address}']\n{TLS}")
    assert message.startswith(
        f"mapd.toml: [tcp] listen: '{address}' is no IP address with a port, as '0.0.0.0:7433'"
    )


# ---- the opener ------------------------------------------------------------------------------------------------------


def test_the_default_policy_is_where_the_policy_looks_for_it() -> None:
    """Written twice, for this module must not import numpy."""
    assert Path(DEFAULT_POLICY) == holder.DEFAULT_PATH


def test_profiles_are_one_or_several() -> None:
    assert parse("[opener]\nprofile = 'minimal'", "test").opener.profile == "minimal"
    assert parse("[opener]\nprofile = ['network', 'pins-ro']", "test").opener.profile == (
        "network",
        "pins-ro",
    )


@pytest.mark.parametrize("said", ["'root'", "[]", "['auto', 'minimal']", "['minimal', 'x']"])
def test_what_is_no_profile_is_refused_with_those_that_are(said: str) -> None:
    with pytest.raises(ConfigError, match=r"test: \[opener\] profile.*auto"):
        parse(f"[opener]\nprofile = {said}", "test")


def test_a_limit_of_nothing_and_a_socket_without_a_place_are_refused() -> None:
    with pytest.raises(ConfigError, match="map_bytes"):
        parse("[opener]\nmap_bytes = 0", "test")
    with pytest.raises(ConfigError, match="socket: 'x' is not absolute"):
        parse("[opener]\nsocket = 'x'", "test")
