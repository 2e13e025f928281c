"""``mapd doctor``, on a real host: what each profile gives is tried with its rights alone."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.e2e.test_locked_in import FRONT, TWO_USERS
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


def test_the_doctor_without_rights_says_that_it_did_not_try(place: Place) -> None:
    rights = ("--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all")
    said = doctor(place, "setpriv", f"--reuid={FRONT}", f"--regid={FRONT}", "--clear-groups", *rights)
    assert {one["tried"] for one in said["profiles"]} == {False}
    assert all("run mapd doctor as root" in one["why"] for one in said["profiles"])
