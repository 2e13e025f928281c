"""The grammar: every control request, what travels of it, and what its answer is. One table, ``FORMS``.

A request's text is ``[name, fields]``; an answer's ``["done", value]`` or ``["refused", error]``. BTF blobs are raw
bytes behind the text, descriptors go beside the message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

from mapd.bpf.kernel import (
    STAMPED_FOLDERS,
    ControlRequest,
    CreateMap,
    FolderPins,
    FreezeMap,
    GetBtf,
    LimitRefused,
    ListFolder,
    ListHolders,
    ListPins,
    LoadBtf,
    LoadTemplate,
    MakeFolder,
    MapHolder,
    MapHolders,
    NextMapId,
    NextProgramId,
    OpenId,
    OpenPin,
    OpenProgramId,
    OpenProgramPin,
    Pin,
    PinPaths,
    PinStamp,
    RemoveFolder,
    Rename,
    StampFolders,
    SyscallError,
    Unpin,
)
from mapd.bpf.pins import PinNotFound
from mapd.bpf.program import LOG_BYTES, ProgramRefused
from mapd.opener.shapes import (
    FLAG,
    TEXT,
    U32,
    U64,
    Fields,
    Json,
    Shape,
    as_list,
    many,
    mapped,
    octets,
    optional,
    put_fields,
    record,
    take_fields,
    text,
)
from mapd.opener.wire import Malformed

_MOST: Final = 1 << 20
"""Pins, processes, maps of one process: of a list in an answer."""

_HASH_BYTES: Final = 32
"""SHA-256."""


class Answer(Enum):
    """Answers that are no value in the text."""

    NOTHING = "nothing"
    DESCRIPTOR = "a descriptor"
    RAW = "raw bytes"


@dataclass(frozen=True, slots=True)
class Form:
    """How one request travels.

    Attributes:
        fields: in the text.
        answer: what comes back.
        raw: the field that is raw bytes behind the text, "" for none.
    """

    fields: Fields
    answer: Shape[Any] | Answer
    raw: str = ""


_FOUND: Final = many(TEXT, _MOST)
_PATHS: Final = record(PinPaths, paths=_FOUND, unread=_FOUND)
_STAMP: Final = record(PinStamp, name=TEXT, inode=U64, changed_ns=U64)
_FOLDER: Final = record(FolderPins, stamp=U64, pins=many(_STAMP, _MOST), folders=_FOUND, uid=U32, mode=U32)
_IDS: Final[Shape[frozenset[int]]] = mapped(many(U32, _MOST), sorted, frozenset)
_HOLDERS: Final = record(
    MapHolders, holders=many(record(MapHolder, pid=U32, comm=TEXT, map_ids=_IDS), _MOST), unread=U32
)
_NEXT: Final = optional(U32)

_PIN: Final[Fields] = {"root": TEXT, "path": TEXT}

FORMS: Final[Mapping[type[ControlRequest[Any]], Form]] = MappingProxyType(
    {
        CreateMap: Form(
            {
                "map_type": U32,
                "key_size": U32,
                "value_size": U32,
                "max_entries": U32,
                "flags": U32,
                "kernel_name": text(256),
                "map_extra": U64,
                "numa_node": optional(U32),
                "with_inner": FLAG,
                "with_btf": FLAG,
                "btf_key_type_id": U32,
                "btf_value_type_id": U32,
                "btf_vmlinux_value_type_id": U32,
                "exclusive_program_hash": octets(_HASH_BYTES),
            },
            Answer.DESCRIPTOR,
        ),
        OpenPin: Form({**_PIN, "read_only": FLAG}, Answer.DESCRIPTOR),
        OpenId: Form({"map_id": U32, "read_only": FLAG}, Answer.DESCRIPTOR),
        Pin: Form({**_PIN, "mkdir": FLAG}, Answer.NOTHING),
        Unpin: Form(_PIN, Answer.NOTHING),
        Rename: Form({**_PIN, "new_path": TEXT, "mkdir": FLAG}, Answer.NOTHING),
        MakeFolder: Form(_PIN, Answer.NOTHING),
        RemoveFolder: Form(_PIN, Answer.NOTHING),
        ListPins: Form({"root": TEXT}, _PATHS),
        ListFolder: Form(_PIN, _FOLDER),
        StampFolders: Form(
            {"root": TEXT, "paths": mapped(many(TEXT, 2 * STAMPED_FOLDERS), list, tuple)},
            many(U64, STAMPED_FOLDERS),
        ),
        NextMapId: Form({"map_id": U32}, _NEXT),
        OpenProgramId: Form({"prog_id": U32}, Answer.DESCRIPTOR),
        OpenProgramPin: Form(_PIN, Answer.DESCRIPTOR),
        NextProgramId: Form({"prog_id": U32}, _NEXT),
        ListHolders: Form({}, _HOLDERS),
        LoadBtf: Form({}, Answer.DESCRIPTOR, raw="blob"),
        LoadTemplate: Form(
            {
                "template": text(64),
                **dict.fromkeys(
                    (
                        "key_size",
                        "value_size",
                        "map_type",
                        "cpus",
                        "slots",
                        "slot_bytes",
                        "field_size",
                        "field_offset",
                    ),
                    U32,
                ),
            },
            Answer.DESCRIPTOR,
        ),
        FreezeMap: Form({}, Answer.NOTHING),
        GetBtf: Form({"btf_id": U32}, Answer.RAW),
    }
)
"""Every request but ProgramInfo, which needs no rights: the front asks the kernel itself (``client.LOCAL``)."""

_NAMED: Final[Mapping[str, type[ControlRequest[Any]]]] = MappingProxyType(
    {kind.__name__: kind for kind in FORMS}
)


def put_request(request: ControlRequest[Any]) -> tuple[bytes, bytes]:
    """Text and raw bytes of a request.

    Raises:
        TypeError: it does not travel.
        Malformed: a value is out of all bounds.
    """
    form = FORMS.get(type(request))
    if form is None:
        raise TypeError(f"{type(request).__name__} is no request to the opener")
    text = _dumps([type(request).__name__, put_fields(request, form.fields)])
    return text, getattr(request, form.raw) if form.raw else b""


def take_request(text: bytes, raw: bytes) -> ControlRequest[Any]:
    """The request that a text is.

    Raises:
        Malformed: it is none.
    """
    kind, fields = _pair(_loads(text))
    request = _NAMED.get(kind)
    if request is None:
        raise Malformed("no such request")
    form = FORMS[request]
    if raw and not form.raw:
        raise Malformed("bytes behind the text")
    try:
        found = take_fields(fields, form.fields)
    except Malformed as error:
        raise Malformed(f"{kind}: {error}") from None
    return request(**found, **({form.raw: raw} if form.raw else {}))


def put_answer(request: ControlRequest[Any], answer: object) -> tuple[bytes, bytes]:
    """Text and raw bytes of what a request is answered; a descriptor goes beside them."""
    form = FORMS[type(request)].answer
    if isinstance(form, Shape):
        return _dumps(["done", form.put(answer)]), b""
    return _dumps(["done", None]), answer if form is Answer.RAW and isinstance(answer, bytes) else b""


def put_error(error: Exception) -> bytes:
    """The text of a refusal."""
    number, command, path = 0, "", None
    if isinstance(error, OSError):
        number, path = error.errno or 0, error.filename
    if isinstance(error, SyscallError):
        command = error.command
    refusal = _Refusal(
        kind=next((name for name, kind in _ERRORS.items() if isinstance(error, kind)), "failure"),
        number=number,
        command=command,
        path=path if isinstance(path, str) else None,
        words=_words(error),
    )
    return _dumps(["refused", put_fields(refusal, _REFUSAL)])


def take_answer(request: ControlRequest[Any], text: bytes, raw: bytes) -> object:
    """What a request was answered: the value; None where it is a descriptor, or nothing.

    Raises:
        Malformed: it is no answer to this request.
        Exception: what the opener refused it with.
    """
    kind, value = _pair(_loads(text))
    form = FORMS[type(request)].answer
    if kind == "refused":
        raise _raised(_Refusal(**take_fields(value, _REFUSAL)))
    if kind != "done" or (raw and form is not Answer.RAW):
        raise Malformed("an answer of no known kind")
    if isinstance(form, Shape):
        return form.take(value)
    return raw if form is Answer.RAW else None


class OpenerFailed(RuntimeError):
    """Carrying out a request failed by a mistake of the opener's own; its log has more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refusal:
    kind: str
    number: int
    command: str
    path: str | None
    words: str


_REFUSAL: Final[Fields] = {
    "kind": text(16),
    "number": U32,
    "command": text(64),
    "path": optional(TEXT),
    "words": text(LOG_BYTES),
}
_ERRORS: Final[Mapping[str, type[Exception]]] = MappingProxyType(
    {
        "program": ProgramRefused,
        "limit": LimitRefused,
        "pin": PinNotFound,
        "syscall": SyscallError,
        "os": OSError,
        "value": ValueError,
    }
)
"""By the first that an exception is one of."""


def _words(error: Exception) -> str:
    match error:
        case ProgramRefused():
            return error.log[-LOG_BYTES:]
        case LimitRefused():
            return error.limit
        case ValueError():
            return str(error)[:1_000]
        case OSError():
            return error.strerror or ""
        case _:
            return type(error).__name__


def _raised(refusal: _Refusal) -> Exception:
    number, words = refusal.number, refusal.words
    match refusal.kind:
        case "syscall":
            return SyscallError(number, refusal.command, refusal.path)
        case "pin":
            return PinNotFound(number, refusal.command, refusal.path)
        case "program":
            return ProgramRefused(number, words)
        case "limit":
            return LimitRefused(number, refusal.command, words)
        case "value":
            return ValueError(words)
        case "os":
            return OSError(number, words, refusal.path)
        case "failure":
            return OpenerFailed(f"the opener failed ({words}); its log says why")
        case _:
            return Malformed("a refusal of no known kind")


def _pair(value: Json) -> tuple[str, Json]:
    found = as_list(value)
    if len(found) != 2 or type(found[0]) is not str:
        raise Malformed("no pair of a name and what belongs to it")
    return found[0], found[1]


def _dumps(value: Json) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _loads(text: bytes) -> Json:
    try:
        return json.loads(text.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise Malformed(f"no JSON ({type(error).__name__})") from None
