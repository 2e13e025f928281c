"""Maps that an eBPF object file declares: what it says, and their creation through a daemon."""

from mapd_client.elf.bad import BadObject
from mapd_client.elf.declared import Convention, Declared, ObjectFile, Pinning, Slot
from mapd_client.elf.read import read_object
from mapd_client.elf.tc import read_pinnings

__all__ = [
    "BadObject",
    "Convention",
    "Declared",
    "ObjectFile",
    "Pinning",
    "Slot",
    "read_object",
    "read_pinnings",
]
