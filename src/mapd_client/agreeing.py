"""``exist_ok`` and types: a map that is there with other BTF bytes may still hold the same fields.

The daemon knows bytes alone, and refuses blobs that differ. Here the map that it refused is opened and its types are
compared field by field: two compilers, or two versions of one, describe one struct by different bytes.
"""

from __future__ import annotations

import contextlib

from mapd_api.v1 import maps_pb2
from mapd_client import methods, replies, requests
from mapd_client.btf import Types
from mapd_client.compare import differences, listed
from mapd_client.errors import Incompatible, MapdError, TypeMismatch
from mapd_client.failures import Asked
from mapd_client.handing import give_back
from mapd_client.info import Btf
from mapd_client.layouts import MapLayout
from mapd_client.link import Link
from mapd_client.refs import Name


async def if_same_types(
    refusal: Incompatible, link: Link, name: str, btf: Btf, asked: Asked, *, read_only: bool, session: str
) -> maps_pb2.CreateMapResponse:
    """The map that was refused for its BTF alone, opened, if all fields are as they were wanted.

    The refusal names the map by its id, which no other map gets after it: if the name leads to another one by now,
    nothing is said of that, and the refusal stands. All but its types the daemon has compared, and they never change.

    Args:
        refusal: of a CreateMap with exist_ok.
        link: to the daemon.
        name: of the map.
        btf: what it was to be created with.
        asked: for messages.
        read_only: open it as creating would have.
        session: that the handle belongs to.

    Cancelled: the handle is given back.

    Raises:
        Incompatible: the refusal itself where the types are not among what differs, or cannot be compared; else one
            that names the fields that differ.
    """
    refused = refusal.metadata.get("fields", "").split(", ")
    if "btf" not in refused or "map_id" not in refusal.metadata:
        raise refusal
    try:
        request = requests.open_map(Name(name), read_only=read_only, session=session)
        opened = await link.call(methods.OPEN_MAP, request, asked)
    except MapdError:
        raise refusal from None
    try:
        if str(replies.map_info(opened.info).id) != refusal.metadata["map_id"]:
            raise refusal
        found = await _differing(refusal, link, opened.handle, btf, asked)
        if refused != ["btf"]:
            raise _said(refusal, f"{refusal.message}\n{found}") if found else refusal
        if found:
            what = f"create {refusal.map}: it exists with other types:\n{found}"
            raise _said(
                refusal, f"{what}\nmapd never recreates a map: use another name, or unpin the old one"
            )
    except BaseException:
        await give_back(link, opened.handle, asked)
        raise
    return maps_pb2.CreateMapResponse(info=opened.info, handle=opened.handle, created=False)


async def _differing(refusal: Incompatible, link: Link, handle: int, btf: Btf, asked: Asked) -> str:
    """The fields that differ, a line each; "" for none."""
    with contextlib.suppress(MapdError):
        answer = await link.call(
            methods.GET_BTF, maps_pb2.GetBtfRequest(map=requests.by_handle(handle)), asked
        )
        there = Btf(answer.btf.blob, answer.btf.key_type_id, answer.btf.value_type_id)
        server = await link.server()
        with contextlib.suppress(TypeMismatch):  # no BTF that can be read
            wanted, is_there = layouts(btf, "the BTF given"), layouts(there, "the map's BTF")
            if (wanted.key is None) == (is_there.key is None) and (
                (wanted.value is None) == (is_there.value is None)
            ):
                return listed(differences(wanted, is_there, byteorder=server.byteorder))
    raise refusal


def layouts(btf: Btf, source: str) -> MapLayout:
    """Both types of a blob.

    Raises:
        BadBtf: they cannot be read.
    """
    types = Types(btf.blob)
    return MapLayout(
        key=types.layout(btf.key_type_id) if btf.key_type_id else None,
        value=types.layout(btf.value_type_id) if btf.value_type_id else None,
        source=source,
    )


def _said(refusal: Incompatible, message: str) -> Incompatible:
    return Incompatible(
        message,
        reason=refusal.reason,
        operation=refusal.operation,
        map=refusal.map,
        metadata=refusal.metadata,
    )
