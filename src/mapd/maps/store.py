"""Finding and making maps: names that are pins, pins, kernel ids.

The pin is the registry: nothing else records that a map exists or whose it is, so nothing can
disagree with it after a crash.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Final

from mapd.bpf.errnos import errno_name
from mapd.bpf.fd import OwnedFd
from mapd.bpf.kernel import (
    FreezeMap,
    GetBtf,
    Kernel,
    OpenId,
    OpenPin,
    Pin,
    Rename,
    SyscallError,
    Unpin,
)
from mapd.maps import creation, leased, locks
from mapd.maps import spec as specs
from mapd.maps.adoption import Adoption
from mapd.maps.blobs import BtfBlobs
from mapd.maps.errors import MapError, capability, not_now
from mapd.maps.leased import LeasedRef
from mapd.maps.opened import Described, MapFacts, OpenMap, facts
from mapd.maps.programs import Programs
from mapd.maps.scan import Scan, ScanOptions
from mapd.maps.spec import MapSpec
from mapd.maps.traits import TypeTraits
from mapd.maps.types import TYPES
from mapd.maps.vector import Vector
from mapd_api.names import is_part
from mapd_api.names import kernel_name as derived_kernel_name
from mapd_api.reasons import Reason
from mapd_api.uapi import MapFlag

_UNSEEN: Final = frozenset({errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""A pin that cannot be opened for one of these may well be there."""


@dataclass(frozen=True, slots=True)
class NameRef:
    """A map by name. ``str`` is "namespace/name"."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class PinRef:
    """A map by the absolute path of its pin."""

    path: str

    def __str__(self) -> str:
        return f"pin:{self.path}"


@dataclass(frozen=True, slots=True)
class IdRef:
    """A map by kernel id."""

    id: int

    def __str__(self) -> str:
        return f"id:{self.id}"


Ref = NameRef | PinRef | IdRef

Place = NameRef | LeasedRef
"""Where a map is made: what keeps it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Btf:
    """A map's type information."""

    blob: bytes
    key_type_id: int
    value_type_id: int


@dataclass(slots=True, kw_only=True)
class MapStore:
    """Maps of one host, through one kernel. Every method blocks.

    Attributes:
        names_root: where names are pinned: <names_root>/<namespace>/<name>; and the maps of leases (``leased``).
        pin_roots: folders below which other programs' pins may be opened and new ones made.
        types: the table of map types, less what this kernel was found to lack (``trials``).
        blobs: where the types of maps made here are kept, None for nowhere.
        programs: those loaded over maps that are open.
        adoption: what is known of the pins of names, and which are not served.
        owner: the user who makes their folders.
    """

    kernel: Kernel
    possible_cpus: int
    boot_id: uuid.UUID
    names_root: str
    pin_roots: Sequence[str] = field(default_factory=tuple)
    types: Mapping[int, TypeTraits] = field(default_factory=lambda: TYPES)
    blobs: BtfBlobs | None = None
    programs: Programs = field(default_factory=Programs)
    owner: int = field(default_factory=os.geteuid)
    adoption: Adoption = field(init=False)

    def __post_init__(self) -> None:
        self.adoption = Adoption(self.kernel, self.names_root, owner=self.owner, blobs=self.blobs)

    def create(
        self,
        name: Place,
        spec: MapSpec,
        *,
        exist_ok: bool,
        template: OpenMap | None = None,
        may_list: Callable[[OpenMap], bool] | None = None,
    ) -> tuple[OpenMap, bool]:
        """Create and pin a map; (map, whether it is new).

        ``template``: of the inner maps of a map of maps; goes with ``spec.inner``. ``may_list``: whether a map that
        exists may be looked at; otherwise all that is said of it is that its name is taken.

        Raises:
            MapError: MAP_EXISTS, INCOMPATIBLE, BAD_SPEC, KERNEL_MEMORY, DAEMON_CAPABILITY, ...; nothing was
                created then.
        """
        specs.check(spec, self.possible_cpus)
        self.adoption.check(self.path_of(name), None, "create", str(name))
        if exist_ok and (there := self._existing(name, spec, may_list)) is not None:
            return there, False
        kernel_name = spec.kernel_name or derived_kernel_name(name.name)
        # BPF_F_RDONLY is of the creator's descriptor, not of the map, and no pin is made of one that only reads.
        pinnable = replace(spec, flags=spec.flags & ~MapFlag.RDONLY)
        fd = creation.create(self.kernel, str(name), pinnable, kernel_name, template)
        path = self.path_of(name)
        created = self._opened(fd, name=self.name_of(path), pin_path=path)
        try:
            if self.blobs is not None and spec.btf is not None:
                self.blobs.keep(created.facts.id, spec.btf.blob)  # first: a map with a name has its types
            with created.fd.lease() as number:
                if isinstance(name, LeasedRef):
                    leased.pin(self.kernel, self.names_root, name, number)
                else:
                    self.kernel.control(Pin(root=self.names_root, path=path, mkdir=True), [number])
        except OSError as error:
            created.fd.close()
            if error.errno == errno.EEXIST:
                if exist_ok and (there := self._existing(name, spec, may_list)) is not None:
                    return there, False
                raise self._exists(name) from None
            raise self.pin_refusal(error, "create", str(name), self.path_of(name)) from error
        except BaseException:
            created.fd.close()
            raise
        if spec.flags & MapFlag.RDONLY:
            created.fd.close()
            try:
                # `read_only` tells what was asked of the opening; here the descriptor alone is so, as the flag says.
                created = replace(self._open_place(name, read_only=True), read_only=False)
            except BaseException:
                self.uncreate(name, created.facts.id)
                raise
        return created, True

    def _open_place(self, name: Place, *, read_only: bool) -> OpenMap:
        return self.open(
            PinRef(self.path_of(name)) if isinstance(name, LeasedRef) else name, read_only=read_only
        )

    def uncreate(self, name: Place, map_id: int) -> None:
        """Unpin a map that ``create`` made, unless somebody has given the name to another meanwhile."""
        path = self.path_of(name)
        if self._leads_to(path, map_id):
            self.unpin(PinRef(path) if isinstance(name, LeasedRef) else name)

    def _existing(
        self, name: Place, spec: MapSpec, may_list: Callable[[OpenMap], bool] | None
    ) -> OpenMap | None:
        """The map of that name if it has that shape; None if there is none."""
        try:
            # Asked for as only reading, it is handed out so, made now or before.
            there = self._open_place(name, read_only=bool(spec.flags & MapFlag.RDONLY))
        except MapError as error:
            if error.reason is Reason.MAP_NOT_FOUND:
                return None
            raise
        kernel_name = derived_kernel_name(name.name)
        try:
            if may_list is not None and not may_list(there):
                raise self._exists(name)
            different = specs.differences(
                spec, there.facts.info, kernel_name, self.possible_cpus
            ) or self._other_btf(spec, there)
        except BaseException:
            there.fd.close()
            raise
        if different:
            there.fd.close()
            raise MapError(
                Reason.INCOMPATIBLE,
                f"create {name}: it exists with another shape ({'; '.join(different)}); mapd never recreates a map: "
                "use another name, or unpin the old one",
                operation="create",
                map=str(name),
                map_id=there.facts.info.id,
                fields=", ".join(line.split(":")[0] for line in different),
            )
        return there

    def _other_btf(self, spec: MapSpec, there: OpenMap) -> list[str]:
        """Whether the map has other types under the same ids, where the daemon may read them."""
        if spec.btf is None or there.facts.info.btf_id == 0:
            return []
        try:
            blob = self.btf(there).blob
        except MapError as error:
            if error.reason is Reason.DAEMON_CAPABILITY:
                return []
            raise
        if blob == spec.btf.blob:
            return []
        return [f"btf: wanted {len(spec.btf.blob)} bytes, is {len(blob)} bytes of other types"]

    def _exists(self, name: Place) -> MapError:
        return MapError(
            Reason.MAP_EXISTS,
            f"create {name}: a map of that name is there (pinned at {self.path_of(name)}); open it, pass exist_ok, "
            "or unpin it",
            operation="create",
            map=str(name),
        )

    def open(self, ref: Ref, *, read_only: bool = False, operation: str = "open") -> OpenMap:
        """Open a map that exists; whoever gets it closes its fd. ``operation``: for messages.

        Raises:
            MapError: MAP_NOT_FOUND; DAEMON_CAPABILITY where the daemon may not; BAD_SPEC for a path outside the roots.
        """
        match ref:
            case NameRef():
                path = self.path_of(ref)
                name = str(ref)
                return self._open_pin(self.names_root, path, ref, operation, read_only=read_only, name=name)
            case PinRef():
                root, name = self.root_of(ref.path, operation), self.name_of(ref.path)
                return self._open_pin(root, ref.path, ref, operation, read_only=read_only, name=name)
            case IdRef():
                try:
                    fd = self.kernel.control(OpenId(map_id=ref.id, read_only=read_only))
                except SyscallError as error:
                    if error.errno == errno.EPERM:
                        raise capability("CAP_SYS_ADMIN", f"open {ref}", operation="open") from error
                    if (refusal := not_now(error, f"open {ref}", operation="open", map=str(ref))) is not None:
                        raise refusal from error
                    if error.errno != errno.ENOENT:
                        raise
                    raise self.not_found(ref, operation) from error
                return self._opened(fd, read_only=read_only)

    def _open_pin(
        self, root: str, path: str, ref: Ref, operation: str, *, read_only: bool, name: str
    ) -> OpenMap:
        try:
            fd = self.kernel.control(OpenPin(root=root, path=path, read_only=read_only))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                raise self.not_found(ref, operation) from None
            raise self.pin_refusal(error, operation, str(ref), path) from error
        opened = self._opened(fd, read_only=read_only, name=name, pin_path=path)
        try:
            self.adoption.check(path, opened.facts.info, operation, str(ref))
        except BaseException:
            opened.fd.close()
            raise
        return opened

    def _opened(self, fd: OwnedFd, *, read_only: bool = False, name: str = "", pin_path: str = "") -> OpenMap:
        try:
            with fd.lease() as number:
                found = self.facts_at(number)
                programs = self.programs.enter(found.id, fd)
                vector = Vector.of(programs, found, number)
        except BaseException:
            fd.close()
            raise
        return OpenMap(
            fd=fd,
            facts=found,
            read_only=read_only,
            name=name,
            pin_path=pin_path,
            leased=self.leased_of(pin_path),
            programs=programs,
            vector=vector,
        )

    def describe(self, opened: OpenMap, map_fd: int) -> Described:
        """A map as it is now: its facts afresh, and its name and pin unless they lead elsewhere by now."""
        now = replace(opened.facts, info=self.kernel.info(map_fd))
        if opened.pin_path and not self._leads_to(opened.pin_path, now.id):
            return Described(now)
        return Described(now, opened.name, opened.pin_path, opened.leased)

    def _leads_to(self, path: str, map_id: int) -> bool:
        """Whether a pin is one of this map's, as far as the daemon can see."""
        try:
            fd = self.kernel.control(OpenPin(root=self.root_of(path, "get"), path=path, read_only=True))
        except OSError as error:
            return error.errno in _UNSEEN
        with fd, fd.lease() as number:
            return self.kernel.info(number).id == map_id

    def _check_leads(self, path: str, map_id: int, operation: str, ref: Ref) -> None:
        """Refuse to go on where a pin leads to another map than the one that was decided on (0: whichever)."""
        if not map_id:
            return
        try:
            fd = self.kernel.control(OpenPin(root=self.root_of(path, operation), path=path, read_only=True))
        except OSError:
            return  # what is wrong the change itself will say
        with fd, fd.lease() as number:
            found = self.kernel.info(number).id
        if found != map_id:
            raise MapError(
                Reason.MAP_REPLACED,
                f"{operation} {ref}: it led to map {map_id} a moment ago, and leads to map {found} now; nothing was "
                "done: look at it, and ask again",
                operation=operation,
                map=str(ref),
                map_id=found,
            )

    def pin(self, opened: OpenMap, path: str) -> None:
        """Pin an open map at one more path.

        Raises:
            MapError: READ_ONLY, the opening is; BAD_SPEC, no path for a pin; MAP_EXISTS; DAEMON_CAPABILITY.
        """
        # The access mode is the descriptor's alone: whoever opens the pin may write (bpf(2), BPF_OBJ_GET).
        read_only = MapError(
            Reason.READ_ONLY,
            f"pin {opened.facts.label}: opened read-only, and anybody could open it for writing through the new "
            "pin; open it again without read_only to pin it",
            **opened.facts.about("pin"),
        )
        if opened.read_only:
            raise read_only
        root = self.root_of(path, "pin")
        if root == self.names_root and not self.name_of(path):
            raise MapError(
                Reason.BAD_SPEC,
                f"pin {opened.facts.label}: {path}: below {root} pins are names, namespace/name, each 1 to 63 of a-z, "
                "0-9, '_', '-', beginning with a letter or digit",
                **opened.facts.about("pin"),
            )
        with opened.lease() as number:
            try:
                self.kernel.control(Pin(root=root, path=path), [number])
            except OSError as error:
                if error.errno == errno.EEXIST:
                    raise MapError(
                        Reason.MAP_EXISTS,
                        f"pin {opened.facts.label}: something is at {path} already; the kernel never overwrites a pin",
                        **opened.facts.about("pin"),
                    ) from None
                if error.errno == errno.EBADF:
                    raise read_only from error
                raise self.pin_refusal(error, "pin", opened.facts.label, path) from error

    def unpin(self, ref: NameRef | PinRef, map_id: int = 0) -> None:
        """Remove a name or a pin; with ``map_id`` only of this map.

        Raises:
            MapError: MAP_NOT_FOUND; MAP_REPLACED, it leads to another map, and nothing was removed.
        """
        if isinstance(ref, NameRef):
            root, path = self.names_root, self.path_of(ref)
        else:
            root, path = self.root_of(ref.path, "unpin"), ref.path
        self._check_leads(path, map_id, "unpin", ref)
        try:
            self.kernel.control(Unpin(root=root, path=path))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                raise self.not_found(ref, "unpin") from None
            raise self.pin_refusal(error, "unpin", str(ref), path) from error

    def rename(self, name: NameRef, new: NameRef, map_id: int = 0) -> str:
        """Give a named map another name, in one step; the path of its pin now. With ``map_id`` only to this map.

        Raises:
            MapError: MAP_NOT_FOUND; MAP_EXISTS, also where both names are one; MAP_REPLACED, the name leads to another
                map; BAD_SPEC, DAEMON_CAPABILITY.
        """
        path, new_path = self.path_of(name), self.path_of(new)
        self._check_leads(path, map_id, "rename", name)
        try:
            self.kernel.control(Rename(root=self.names_root, path=path, new_path=new_path, mkdir=True))
        except OSError as error:
            of_new = (
                name.namespace != new.namespace and error.filename == f"{self.names_root}/{new.namespace}"
            )
            if error.errno in (errno.ENOENT, errno.ENOTDIR) and not of_new:
                raise self.not_found(name, "rename") from None
            if error.errno == errno.EEXIST:
                raise MapError(
                    Reason.MAP_EXISTS,
                    f"rename {name}: {new} is taken (pinned at {new_path}); unpin that map, or choose another name",
                    operation="rename",
                    map=str(name),
                    new_name=str(new),
                ) from None
            raise self.pin_refusal(error, "rename", str(name), error.filename or path) from error
        return new_path

    def freeze(self, opened: OpenMap) -> None:
        """Make a map read-only for user space for ever; once is enough."""
        opened_facts = opened.facts
        about = opened_facts.about("freeze")
        opened_facts.check_freezes()
        if opened.read_only:
            raise MapError(
                Reason.READ_ONLY,
                f"freeze {opened_facts.label}: opened read-only; open it again to freeze it",
                **about,
            )
        with opened.lease() as number, opened.programs.writing:
            try:
                self._freeze(number)
            except SyscallError as error:
                if self.kernel.info(number).frozen:
                    return
                if error.errno == errno.EBUSY:
                    raise MapError(
                        Reason.BUSY,
                        f"freeze {opened_facts.label}: somebody writes it at this moment (try again), or has a "
                        "writable mmap of it (unmap it first) [EBUSY]",
                        **about,
                    ) from error
                if error.errno == errno.EPERM:
                    raise opened_facts.access_refusal("freeze", writes=True) from error
                if (refusal := not_now(error, f"freeze {opened_facts.label}", **about)) is not None:
                    raise refusal from error
                raise MapError(
                    Reason.OPERATION_UNSUPPORTED, f"freeze {opened_facts.label}: {error.strerror}", **about
                ) from error

    def _freeze(self, map_fd: int) -> None:
        """Three tries: EBUSY is also a write that is under way (kernel/bpf/syscall.c, map_freeze(), writecnt)."""
        for last in (False, False, True):
            try:
                return self.kernel.control(FreezeMap(), [map_fd])
            except SyscallError as error:
                if last or error.errno != errno.EBUSY:
                    raise
        raise AssertionError("the last try returns or raises")

    def btf(self, opened: OpenMap) -> Btf:
        """A map's type information: what it was made with here, or else the kernel's.

        Raises:
            MapError: OPERATION_UNSUPPORTED, it has none; DAEMON_CAPABILITY, others made it and the daemon may not ask.
        """
        info = opened.facts.info
        if info.btf_id == 0:
            raise MapError(
                Reason.OPERATION_UNSUPPORTED,
                f"btf {opened.facts.label}: this map was created without BTF; bring the types yourself",
                **opened.facts.about("btf"),
            )
        blob = self.blobs.find(info.id) if self.blobs is not None else None
        if blob is None:
            try:
                blob = self.kernel.control(GetBtf(btf_id=info.btf_id))
            except SyscallError as error:
                if error.errno == errno.EPERM:
                    raise capability("CAP_SYS_ADMIN", f"btf {opened.facts.label}", operation="btf") from error
                what = f"btf {opened.facts.label}"
                if (scarce := not_now(error, what, **opened.facts.about("btf"))) is not None:
                    raise scarce from error
                raise
        return Btf(blob=blob, key_type_id=info.btf_key_type_id, value_type_id=info.btf_value_type_id)

    def scan(self, opened: OpenMap, options: ScanOptions, *, ranges: int = 1) -> Scan:
        """A walk over an open map, in so many ranges where it is a large hash table."""
        return Scan(self.kernel, opened.facts, options, self.boot_id, ranges=ranges)

    def facts_at(self, map_fd: int) -> MapFacts:
        """The facts of an open map, as this kernel serves its type."""
        info = self.kernel.info(map_fd)
        return facts(info, self.possible_cpus, self.types, has_lock=locks.has_lock(self.kernel, map_fd, info))

    def path_of(self, name: Place) -> str:
        """Where a name, or a map of a lease, is pinned."""
        if isinstance(name, LeasedRef):
            return leased.path_of(self.names_root, name)
        return f"{self.names_root}/{name.namespace}/{name.name}"

    def name_of(self, path: str) -> str:
        """The name that a pin's path is, or "" where it is none."""
        try:
            parts = PurePosixPath(path).relative_to(self.names_root).parts
        except ValueError:
            return ""
        return "/".join(parts) if len(parts) == 2 and all(map(is_part, parts)) else ""

    def leased_of(self, path: str) -> LeasedRef | None:
        """The place in a lease that a pin's path is, None where it is none."""
        return leased.parse(self.names_root, path)

    def root_of(self, path: str, operation: str) -> str:
        """The folder below which a path that a client gave is resolved.

        Raises:
            MapError: BAD_SPEC, below none of the roots, or not in the one spelling that a path has.
        """
        # One spelling for each pin: /x/./y would be another path to the same place, past the checks of its root.
        if path.startswith("/") and {"", "."} & set(path.split("/")[1:]):
            raise MapError(
                Reason.BAD_SPEC,
                f"{operation} {path!r}: a part of the path is empty or '.'; write it without '//', '/./' and a '/' at "
                "the end",
                operation=operation,
            )
        for root in (self.names_root, *self.pin_roots):
            if path.startswith(root + "/") and ".." not in path.split("/") and "\0" not in path:
                return root
        raise MapError(
            Reason.BAD_SPEC,
            f"{operation} {path!r}: not a path below {' or '.join(self.pin_roots)} without '..'; the daemon's "
            "configuration names where pins may be ([daemon] pin_roots)",
            operation=operation,
        )

    def not_found(self, ref: Ref | LeasedRef, operation: str) -> MapError:
        """What is said where no such map is."""
        match ref:
            case NameRef():
                why = f"no such map (nothing is pinned at {self.path_of(ref)}); list the maps, or create it"
            case PinRef() | LeasedRef():
                why = "nothing is pinned there"
            case _:
                why = "no map has this id now: an id ends with its map and is not given again"
        return MapError(Reason.MAP_NOT_FOUND, f"{operation} {ref}: {why}", operation=operation, map=str(ref))

    def pin_refusal(self, error: OSError, operation: str, what: str, path: str) -> MapError:
        """A pin that could not be opened, made or removed, for a reason of the file system."""
        name = errno_name(error.errno or 0)
        about = {"operation": operation, "errno": name, "map": what}
        if (refusal := not_now(error, f"{operation} {what}", operation=operation, map=what)) is not None:
            return refusal
        match error.errno:
            case errno.EACCES if "." in PurePosixPath(path).name:
                hint = "no map's pin: their names have no '.'"
            case errno.EACCES:
                fix = (
                    "let mapd's user reach it (chown or chmod the pin and its folders), or give mapd CAP_DAC_OVERRIDE "
                    "(profile pins-rw) or CAP_DAC_READ_SEARCH (profile pins-ro, read-only opening)"
                )
                return MapError(
                    Reason.DAEMON_CAPABILITY,
                    f"{operation} {what}: the modes of {path} do not admit the daemon; {fix} [{name}]",
                    **about,
                    capability="CAP_DAC_OVERRIDE",
                    fix=fix,
                )
            case errno.EPERM:
                hint = "it is not on a bpffs, or its name has a '.', which bpffs refuses"
            case errno.EINVAL:
                hint = "what is pinned there is not a map"
            case errno.EISDIR:
                hint = "this is a folder; name a pin in it"
            case errno.ELOOP | errno.EXDEV:
                hint = "the path leads through a symbolic link or out of its root; give the real path"
            case errno.ENOENT:
                hint = "a folder of the path does not exist; make it first"
            case errno.ENOTDIR:
                hint = "a part of the path is a pin, not a folder; unpin that, or use another path"
            case _:
                hint = str(error.strerror)
        return MapError(Reason.BAD_SPEC, f"{operation} {what}: {path}: {hint} [{name}]", **about)
