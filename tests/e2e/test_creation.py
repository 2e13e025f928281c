"""Every map type through the daemon: made by the client, seen by bpftool, refused where the type has no more."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest

from mapd.maps.spec import MapSpec
from mapd.maps.traits import REFERENCES, Btf
from mapd.maps.types import TYPES, type_name
from mapd_api.ops import TAKES_VALUE, Op
from mapd_api.reasons import Reason
from mapd_api.uapi import PER_CPU_TYPES, MapFlag, MapType
from mapd_api.v1 import elements_pb2, maps_pb2, types_pb2
from mapd_client import U32, U64, Bytes, Incompatible, Map, MapExists, PerCpu, PermissionDenied, Unsupported
from mapd_client import Btf as ClientBtf
from mapd_client.opening import Opening
from tests.e2e.bad_input import Ground, by_name, check, on_ground, refused
from tests.kernel.test_creation import bpftool
from tests.support.daemon import Place
from tests.support.samples import BLOB, EVERY_TYPE, described, sample


@pytest.fixture
async def ground(place: Place) -> AsyncGenerator[Ground]:
    async with on_ground(place) as found:
        yield found


async def template(ground: Ground) -> None:
    """The map called "template", of the shape of the samples' inner maps."""
    async with ground.client.create_map("template", "array", key=U32, value=U64, max_entries=4):
        pass


def create(ground: Ground, spec: MapSpec, name: str = "it", **other: Any) -> Opening[Map[Any, Any]]:
    """The map of a spec, by the client."""
    value = Bytes(spec.value_size)
    btf = None
    if spec.btf is not None:
        vmlinux = spec.btf_vmlinux_value_type_id
        btf = ClientBtf(spec.btf.blob, spec.btf.key_type_id, spec.btf.value_type_id, vmlinux)
    return ground.client.create_map(
        name,
        type_name(spec.map_type),
        key=Bytes(spec.key_size),
        value=PerCpu(value) if spec.map_type in PER_CPU_TYPES else value,
        max_entries=spec.max_entries,
        flags=spec.flags,
        map_extra=spec.map_extra,
        inner="template" if spec.inner else None,
        btf=btf,
        **other,
    )


@pytest.mark.parametrize("kind", EVERY_TYPE, ids=type_name)
async def test_a_map_of_each_type_is_created_by_a_client_and_bpftool_agrees(
    ground: Ground, kind: MapType
) -> None:
    traits, spec = TYPES[kind], sample(kind)
    if traits.template:
        await template(ground)
    if traits.btf is Btf.ACCEPTED:
        spec = replace(spec, btf=described(spec))
    async with create(ground, spec) as made:
        info = made.info
        assert (info.type, info.key_size, info.value_size) == (kind, spec.key_size, spec.value_size)
        # compare_update is for values with a lock, which these have not.
        assert info.supported_operations == set(traits.operations) - {"compare_update"}
        assert info.iteration == traits.iteration.value
        assert bool(info.btf_id) == (traits.btf is not Btf.REFUSED)
        said = bpftool("map", "show", "pinned", info.pin_path)
        assert said["type"] in (info.type_name, kind)
        assert (said["id"], said["name"], said["flags"]) == (info.id, "it", info.flags)
        assert (said["bytes_key"], said["bytes_value"]) == (info.key_size, info.value_size)
        assert (said["max_entries"], said.get("btf_id", 0)) == (info.max_entries, info.btf_id)
    async with create(ground, spec, exist_ok=True) as again:
        assert again.info.id == info.id
    with pytest.raises(MapExists):
        await create(ground, spec)
    async with ground.client.open_map("it") as opened:
        assert opened.info.id == info.id
    await ground.client.unpin_map("it")


@pytest.mark.parametrize("kind", EVERY_TYPE, ids=type_name)
async def test_what_a_type_lacks_is_unimplemented_and_the_kernel_is_not_asked(
    ground: Ground, kind: MapType
) -> None:
    """UNIMPLEMENTED with type and operation, by every way in."""
    traits, spec = TYPES[kind], sample(kind)
    if traits.template:
        await template(ground)
    made = await create(ground, spec)
    handle = await ground.raw.open(by_name("it"))
    key, value = bytes(made.info.key_stride), bytes(made.info.value_stride)
    told = {"map_type": type_name(kind)}
    with ground.no_call():
        for op in set(Op) - traits.ops:
            group = elements_pb2.OpGroup(
                map=handle, count=1, ops=bytes([op]), keys=key, values=value if op in TAKES_VALUE else b""
            )
            refusal = await ground.raw.group_refusal(group)
            check(refusal, Reason.OPERATION_UNSUPPORTED, type_name(kind), **told)
            assert refusal.metadata["operation"] in op.name.lower()
        calls: dict[str, Any] = {}
        if Op.LOOKUP not in traits.ops:
            calls["Lookup"] = elements_pb2.LookupRequest(map=handle, key=key)
        if Op.UPDATE not in traits.ops:
            calls["Update"] = elements_pb2.UpdateRequest(map=handle, key=key, value=value)
            columns = types_pb2.Columns(count=1, keys=key, values=value)
            calls["Load"] = elements_pb2.LoadRequest(map=handle, columns=columns)
        if Op.DELETE not in traits.ops:
            calls["Delete"] = elements_pb2.DeleteRequest(map=handle, key=key)
        if not traits.iterable:
            calls["Dump"] = elements_pb2.DumpRequest(map=handle)
            calls["GetNextKey"] = elements_pb2.GetNextKeyRequest(map=handle)
        if not traits.freezes:
            calls["FreezeMap"] = maps_pb2.FreezeMapRequest(map=handle)
        for method, request in calls.items():
            refusal = await ground.raw.refusal(method, request)
            check(refusal, Reason.OPERATION_UNSUPPORTED, type_name(kind), **told)
    await made.aclose()


@pytest.mark.parametrize("kind", [k for k in EVERY_TYPE if TYPES[k].value not in REFERENCES], ids=type_name)
async def test_a_map_whose_values_are_no_references_takes_none(ground: Ground, kind: MapType) -> None:
    made = await create(ground, sample(kind))
    request = elements_pb2.UpdateReferenceRequest(
        map=await ground.raw.open(by_name("it")), key=bytes(made.info.key_stride)
    )
    request.inner.name = "it"
    refusal = await ground.raw.refusal("UpdateReference", request)
    check(refusal, Reason.OPERATION_UNSUPPORTED, type_name(kind), map_type=type_name(kind))
    await made.aclose()


async def test_a_template_is_named_by_handle_name_pin_and_id(ground: Ground) -> None:
    inner = await ground.client.create_map("inner", "hash", key=U32, value=U64, max_entries=4)
    refs = [
        await ground.raw.open(by_name("inner")),
        by_name("inner"),
        types_pb2.MapRef(pin=inner.info.pin_path),
        types_pb2.MapRef(id=inner.info.id),
    ]
    for number, ref in enumerate(refs):
        request = maps_pb2.CreateMapRequest(
            type=types_pb2.MAP_TYPE_HASH_OF_MAPS,
            key_size=4,
            value_size=4,
            max_entries=2,
            inner=ref,
            named=maps_pb2.Named(name=f"outer{number}"),
        )
        made = await ground.raw.call("CreateMap", request, maps_pb2.CreateMapResponse)
        assert made.created
        assert made.info.type == types_pb2.MAP_TYPE_HASH_OF_MAPS
    missing = maps_pb2.CreateMapRequest(
        type=types_pb2.MAP_TYPE_HASH_OF_MAPS,
        key_size=4,
        value_size=4,
        max_entries=2,
        inner=by_name("nowhere"),
        named=maps_pb2.Named(name="outer"),
    )
    check(await ground.raw.refusal("CreateMap", missing), Reason.MAP_NOT_FOUND, "admin/nowhere")
    await inner.aclose()


async def test_what_the_kernel_refuses_as_a_template_is_told_with_both_maps(ground: Ground) -> None:
    async with ground.client.create_map("programs", "prog_array", key=U32, value=U32, max_entries=4):
        pass
    with refused(
        Unsupported, Reason.OPERATION_UNSUPPORTED, "create admin/outer", "of maps like prog_array map"
    ):
        await ground.client.create_map(
            "outer", "array_of_maps", key=U32, value=U32, max_entries=2, inner="programs"
        )
    assert not ground.pin("outer").exists()


async def test_a_client_may_give_every_attribute(ground: Ground) -> None:
    btf = ClientBtf(BLOB, 1, 2)
    described_so: dict[str, Any] = {
        "key": U32,
        "value": U64,
        "max_entries": 8,
        "flags": MapFlag.NO_PREALLOC,
        "kernel_name": "all.of_it",
        "numa_node": 0,
        "btf": btf,
    }
    async with ground.client.create_map("all", "hash", **described_so) as made:
        info = made.info
        assert info.flags == MapFlag.NO_PREALLOC | MapFlag.NUMA_NODE
        assert (info.kernel_name, info.btf_key_type_id, info.btf_value_type_id) == ("all.of_it", 1, 2)
    async with ground.client.create_map("all", "hash", **described_so, exist_ok=True):
        pass
    cases: list[tuple[dict[str, Any], str]] = [
        ({"kernel_name": "other"}, "kernel_name: wanted other, is all.of_it"),
        ({"numa_node": None}, "flags: wanted 0x1, is 0x5"),
        ({"btf": ClientBtf(BLOB, 1, 4)}, "value: wanted struct sample, is u64"),
        ({"max_entries": 9}, "max_entries: wanted 9, is 8"),
        ({"exclusive_program_hash": bytes(32)}, "exclusive_program_hash: wanted 0000"),
    ]
    for changed, field in cases:
        with refused(Incompatible, Reason.INCOMPATIBLE, field):
            await ground.client.create_map("all", "hash", **{**described_so, **changed}, exist_ok=True)
    async with ground.client.create_map(
        "bloom", "bloom_filter", key=Bytes(0), value=U64, max_entries=64, map_extra=5
    ) as bloom:
        assert bloom.info.map_extra == 5
    async with ground.client.create_map(
        "shared", "array", key=U32, value=U64, max_entries=8, flags=MapFlag.MMAPABLE
    ) as shared:
        assert shared.info.flags == MapFlag.MMAPABLE


async def test_a_map_that_only_reads_is_handed_out_so_also_when_it_is_there_already(ground: Ground) -> None:
    """Repeating with exist_ok is what a caller does after a lost answer."""
    for _ in range(2):
        async with ground.client.create_map(
            "flows", "hash", key=U32, value=U64, max_entries=4, flags=MapFlag.RDONLY, exist_ok=True
        ) as flows:
            with pytest.raises(PermissionDenied):
                await flows.update(1, 1)
