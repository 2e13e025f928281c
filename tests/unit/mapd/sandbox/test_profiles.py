"""Profiles, masks of capabilities, and who can read what."""

from __future__ import annotations

from pathlib import Path

import pytest

from mapd.sandbox import Account, ProfileError, account, bits_of, capabilities_of, profiles_of
from mapd.sandbox.capabilities import names_of
from mapd.sandbox.profiles import GIVES, PROFILES
from mapd.sandbox.users import unreadable


def test_profiles_are_those_of_the_table_and_may_be_combined() -> None:
    assert capabilities_of("minimal") == {"CAP_BPF"}
    assert capabilities_of(["network", "pins-ro"]) == {"CAP_BPF", "CAP_NET_ADMIN", "CAP_DAC_READ_SEARCH"}
    assert profiles_of(["inspector", "minimal", "inspector"]) == ("minimal", "inspector")
    assert GIVES.keys() == PROFILES.keys()


def test_auto_is_all_of_them() -> None:
    assert capabilities_of("auto") == {
        "CAP_BPF",
        "CAP_DAC_READ_SEARCH",
        "CAP_DAC_OVERRIDE",
        "CAP_NET_ADMIN",
        "CAP_SYS_ADMIN",
    }


@pytest.mark.parametrize("said", ["", "root", [], ["minimal", "pins"], ["auto", "minimal"]])
def test_what_is_no_profile_is_refused_with_those_that_are(said: str | list[str]) -> None:
    with pytest.raises(ProfileError, match="auto"):
        profiles_of(said)


def test_masks_and_names_are_two_ways_to_say_it() -> None:
    names = ("CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_BPF")
    assert bits_of(names) == 1 << 12 | 1 << 21 | 1 << 39
    assert names_of(bits_of(names)) == names
    assert names_of(1 << 63) == ("CAP_63",)
    with pytest.raises(KeyError):
        bits_of({"CAP_ROOT"})


def test_users_are_found_by_name_or_number() -> None:
    assert account("root") == account(0) == account("0") == Account(0, 0)
    assert account("no-such-user-of-this-host") is None
    assert account(123_456_789) == Account(123_456_789, 123_456_789)
    for number in (-1, (1 << 32) - 1):
        with pytest.raises(ValueError, match="from 0 to"):
            account(number)


def test_a_folder_that_a_user_may_not_enter_is_named(tmp_path: Path) -> None:
    """An interpreter below somebody's home cannot be run by the daemon's user."""
    inner = tmp_path / "home" / "venv"
    inner.mkdir(parents=True)
    stranger = Account(123_456_789, 123_456_789)
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    assert unreadable([inner], stranger) is None
    (tmp_path / "home").chmod(0o700)
    assert unreadable([inner], stranger) == tmp_path / "home"
    assert unreadable([inner], Account(0, 0)) is None
