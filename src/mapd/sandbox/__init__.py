"""Locking a process in, by itself, before it has a thread: user, capabilities, landlock, seccomp.

The only home of ctypes beside ``mapd.bpf``. Standard library alone, and no other package of mapd: the process that
holds the capabilities imports it too. Nothing here can be undone by the process that asked for it.
"""

from __future__ import annotations

from mapd.sandbox.capabilities import Held, SandboxError, bits_of, held
from mapd.sandbox.landlock import Rules, abi
from mapd.sandbox.lock import Locked, lock_front, lock_opener
from mapd.sandbox.profiles import PROFILES, ProfileError, capabilities_of, profiles_of
from mapd.sandbox.users import Account, account

__all__ = [
    "PROFILES",
    "Account",
    "Held",
    "Locked",
    "ProfileError",
    "Rules",
    "SandboxError",
    "abi",
    "account",
    "bits_of",
    "capabilities_of",
    "held",
    "lock_front",
    "lock_opener",
    "profiles_of",
]
