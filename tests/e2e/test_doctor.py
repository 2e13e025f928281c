"""``mapd doctor``, on a real host: what each profile gives is tried with its rights alone."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

from tests.e2e.test_adoption import put_map, put_program
from tests.e2e.test_adoption_refusals import OWN_NAMESPACE
from tests.e2e.test_locked_in import TWO_USERS
from tests.support.activation import FRONT
from tests.support.daemon import Place, environment


def doctor(place: Place, *prefix: str) -> dict[str, Any]:
    file = place.root / "mapd.toml"
    file.write_text(place.toml(extra=TWO_USERS))
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "mapd", "doctor", "--json", "--config", str(file)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    said: dict[str, Any] = json.loads(done.stdout)
    return said


NETWORK = {"devmap", "devmap_hash", "sockmap", "sockhash", "xskmap"}


def test_the_doctor_tries_each_profile_with_its_rights_alone(place: Place) -> None:
    profiles = {one["profile"]: one for one in doctor(place)["profiles"]}
    assert [one["tried"] for one in profiles.values()] == [True] * 5
    for name in ("minimal", "pins-ro", "pins-rw"):
        assert profiles[name]["refused"] == dict.fromkeys(NETWORK, "EPERM")
    assert not NETWORK & profiles["network"]["refused"].keys()
    assert [name for name, one in profiles.items() if one["ids"]] == ["inspector"]


def test_the_doctor_tells_what_a_daemon_would_not_serve_of_the_pins_that_are_there(place: Place) -> None:
    put_map(place, "agent/flows")
    put_program(place.names / "agent" / "prog")
    put_map(place, "open/flows")
    (place.names / "open").chmod(0o777)
    checks = doctor(place)["checks"]
    found = {one["found"]: one["fix"] for one in checks if one["name"] == "quarantined"}
    assert sorted(found) == [
        f"{place.names}/agent/prog: not a map: a program or a link is pinned there [EINVAL]",
        f"{place.names}/open: the folder has mode 0777: others can put any map under its names",
    ]
    assert found.popitem()[1].startswith(f"chmod go-w {place.names}/open")
    assert f"{place.names}: 1 maps have names" in {one["found"] for one in checks}


def test_the_doctor_says_where_the_host_does_not_see_the_bpffs(place: Place) -> None:
    folder = place.root / "private"
    folder.mkdir()
    prefix = ("unshare", "--mount", "--propagation", "private", "sh", "-c", OWN_NAMESPACE, str(folder))
    said = doctor(replace(place, bpffs=folder), *prefix)
    assert not said["can_serve"]
    (bpffs,) = [one for one in said["checks"] if one["name"] == "bpffs"]
    assert "PID 1 does not see this bpffs" in bpffs["found"]
    assert "private_bpffs = true" in bpffs["fix"]


def test_the_doctor_without_rights_says_that_it_did_not_try(place: Place) -> None:
    rights = ("--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all")
    said = doctor(place, "setpriv", f"--reuid={FRONT}", f"--regid={FRONT}", "--clear-groups", *rights)
    assert {one["tried"] for one in said["profiles"]} == {False}
    assert all("run mapd doctor as root" in one["why"] for one in said["profiles"])
