"""What a type lacks is refused with type and operation, and the kernel is not asked: all types, all operations.

The kernel here is a dict, whose calls are written down: there must be none.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from mapd.bpf import FaultyKernel
from mapd.maps.errors import MapError
from mapd.maps.execute import execute, next_key
from mapd.maps.groups import Group, plan
from mapd.maps.opened import OpenMap, operation_of
from mapd.maps.scan import Scan, ScanOptions
from mapd.maps.store import MapStore
from mapd.maps.traits import REFERENCES
from mapd.maps.types import TYPES, type_name
from mapd_api.ops import TAKES_VALUE, Op
from mapd_api.reasons import STATUS, Reason
from tests.support.samples import EVERY_TYPE
from tests.unit.mapd.dictkernel import CPUS, ROOT, DictKernel, DictMap, raw_info

BOOT = uuid.UUID(int=7)
LACKING = [(kind, op) for kind in EVERY_TYPE for op in Op if op not in TYPES[kind].ops]
KEYLESS = range(1)


class Bench:
    """One open map of a type on a dict kernel that keeps record."""

    def __init__(self, kind: int) -> None:
        dicts = DictKernel()
        self.kernel = FaultyKernel(dicts)
        self.keys = 0 if TYPES[kind].key_sizes == KEYLESS else 4
        self.opened: OpenMap = dicts.open(DictMap(raw_info(kind, key_size=self.keys)))
        self.store = MapStore(kernel=self.kernel, possible_cpus=CPUS, boot_id=BOOT, names_root=ROOT)

    def group(self, op: Op) -> Group:
        stride = self.opened.facts.value_stride
        return Group(
            count=1, ops=bytes([op]), keys=bytes(self.keys), values=bytes(stride * (op in TAKES_VALUE))
        )

    def refused(self, kind: int, operation: str, call: Callable[[], object]) -> None:
        with pytest.raises(MapError) as caught:
            call()
        refusal = caught.value.refusal
        assert refusal.reason is Reason.OPERATION_UNSUPPORTED
        assert STATUS[refusal.reason].name == "UNIMPLEMENTED"
        assert refusal.metadata["operation"] == operation
        assert refusal.metadata["map_type"] == type_name(kind)
        assert refusal.message.startswith(f"{operation} map 41 (flows): {type_name(kind)} maps")
        assert self.kernel.seen == ()
        self.opened.fd.close()


@pytest.mark.parametrize(("kind", "op"), LACKING, ids=lambda value: value.name.lower())
def test_an_operation_that_a_type_lacks_makes_no_syscall(kind: int, op: Op) -> None:
    bench = Bench(kind)
    bench.refused(kind, operation_of(op), lambda: plan(bench.group(op), bench.opened))


@pytest.mark.parametrize("kind", [k for k in EVERY_TYPE if not TYPES[k].iterable], ids=type_name)
def test_what_cannot_be_walked_is_neither_dumped_nor_stepped_through(kind: int) -> None:
    bench = Bench(kind)
    facts = bench.opened.facts
    bench.refused(kind, "dump", lambda: Scan(bench.kernel, facts, ScanOptions(), BOOT))
    bench = Bench(kind)
    bench.refused(kind, "get_next_key", lambda: next_key(bench.kernel, 0, facts, None))


@pytest.mark.parametrize("kind", [k for k in EVERY_TYPE if not TYPES[k].freezes], ids=type_name)
def test_what_cannot_be_frozen_is_not_tried(kind: int) -> None:
    bench = Bench(kind)
    bench.refused(kind, "freeze", lambda: bench.store.freeze(bench.opened))


def test_an_operation_that_a_type_has_does_make_one() -> None:
    """The record is kept: without this the tests above would prove nothing."""
    bench = Bench(EVERY_TYPE[0])
    checked = plan(bench.group(Op.UPDATE), bench.opened)
    with bench.opened.lease() as map_fd:
        execute(bench.kernel, map_fd, bench.opened, checked)
    assert len(bench.kernel.seen) == 1
    bench.opened.fd.close()


@pytest.mark.parametrize("kind", EVERY_TYPE, ids=type_name)
def test_what_is_said_of_a_type_is_what_the_table_has(kind: int) -> None:
    traits = TYPES[kind]
    said = set(traits.operations)
    assert {op.name.lower() for op in traits.ops} <= said
    assert ("dump" in said) == traits.iterable
    assert ("update_reference" in said) == (traits.value in REFERENCES)
    assert ("freeze" in said) == traits.freezes
    assert len(traits.operations) == len(said)
