"""What is wanted of a dump, and pages as messages that any protobuf library reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapd.maps.errors import MapError
from mapd.maps.opened import Described
from mapd.maps.reduce import Reducing, Reduction
from mapd.maps.scan import Page, ScanOptions
from mapd.maps.select import ByteRange
from mapd.rpc import dumps
from mapd.runtime.scans import Trailer
from mapd_api import limits
from mapd_api.reasons import Reason
from mapd_api.v1 import elements_pb2 as elements
from tests.unit.mapd.dictkernel import described


def read(messages: list[bytes]) -> list[elements.DumpChunk]:
    """As a client reads them."""
    found = [elements.DumpResponse.FromString(message) for message in messages]
    assert {message.WhichOneof("message") for message in found} == {"chunk"}
    return [message.chunk for message in found]


def test_every_wish_of_a_dump_arrives() -> None:
    request = elements.DumpRequest(
        prefix=b"p",
        limit=1 << 40,
        resume_token=b"t",
        covered_by=b"c",
        nonzero_values=True,
        reductions=[
            elements.Reduction(offset=8, size=4, signed=True, kind=elements.REDUCTION_KIND_MIN),
            elements.Reduction(size=8, kind=elements.REDUCTION_KIND_SUM),
            elements.Reduction(offset=12, size=1, kind=elements.REDUCTION_KIND_MAX),
        ],
        value_range=elements.ByteRange(offset=3, size=2),
    )
    assert dumps.options(request) == ScanOptions(
        prefix=b"p",
        limit=1 << 40,
        token=b"t",
        covered_by=b"c",
        nonzero_values=True,
        reductions=(
            Reduction(8, 4, True, Reducing.MIN),
            Reduction(0, 8, False, Reducing.SUM),
            Reduction(12, 1, False, Reducing.MAX),
        ),
        value_range=ByteRange(3, 2),
    )


def test_a_request_without_wishes_is_for_all() -> None:
    assert dumps.options(elements.DumpRequest()) == ScanOptions()


@pytest.mark.parametrize(
    ("columns", "keys", "values"),
    [(elements.DUMP_COLUMNS_KEYS, True, False), (elements.DUMP_COLUMNS_VALUES, False, True)],
)
def test_one_column_may_be_left_out(columns: elements.DumpColumns, keys: bool, values: bool) -> None:
    options = dumps.options(elements.DumpRequest(columns=columns))
    assert (options.keys, options.values) == (keys, values)


@pytest.mark.parametrize(
    ("request_bytes", "reason", "said"),
    [
        (b"\x10\x09", Reason.BAD_FLAGS, "9 is no DumpColumns"),
        (b"\x42\x02\x10\x04", Reason.BAD_SPEC, "0 is no ReductionKind: 1 SUM, 2 MIN, 3 MAX"),
        (b"\x42\x04\x10\x04\x20\x09", Reason.BAD_SPEC, "9 is no ReductionKind"),
    ],
)
def test_numbers_that_stand_for_nothing_are_refused(request_bytes: bytes, reason: Reason, said: str) -> None:
    with pytest.raises(MapError, match=said) as caught:
        dumps.options(elements.DumpRequest.FromString(request_bytes))
    assert caught.value.reason is reason


def test_the_header_says_how_wide_values_are() -> None:
    header = dumps.header(Described(described()), 3).header
    assert (header.info.id, header.info.value_stride, header.value_bytes) == (41, 4, 3)


def test_a_page_is_one_message_where_it_fits() -> None:
    (chunk,) = read(dumps.chunks(Page(2, b"k" * 8, b"v" * 8, b"token"), described(), 4))
    assert (chunk.columns.count, chunk.columns.keys, chunk.columns.values) == (2, b"k" * 8, b"v" * 8)
    assert chunk.token == b"token"


@given(
    st.integers(0, 300),
    st.sampled_from([0, 4]),
    st.sampled_from([0, 1, 9, 100]),
    st.binary(max_size=200),
)
def test_messages_are_what_protobuf_would_write(
    count: int, key_stride: int, value_bytes: int, token: bytes
) -> None:
    page = Page(count, b"k" * count * key_stride, b"v" * count * value_bytes, token)
    (message,) = dumps.chunks(page, described(), value_bytes)
    chunk = elements.DumpChunk(token=token)
    chunk.columns.SetInParent()
    chunk.columns.count, chunk.columns.keys, chunk.columns.values = count, page.keys, page.values
    assert message == elements.DumpResponse(chunk=chunk).SerializeToString()


@pytest.mark.parametrize(("keys", "values"), [(True, True), (True, False), (False, True)])
def test_a_page_too_large_is_several_and_only_the_last_can_be_resumed_behind(
    keys: bool, values: bool
) -> None:
    count = limits.CHUNK_MAX_BYTES
    page = Page(count, bytes(4 * count) * keys, bytes(4 * count) * values, b"token")
    messages = dumps.chunks(page, described(), 4)
    found = read(messages)
    assert len(found) == 4 * (keys + values)
    assert sum(chunk.columns.count for chunk in found) == count
    assert [chunk.token for chunk in found] == [b""] * (len(found) - 1) + [b"token"]
    assert b"".join(chunk.columns.keys for chunk in found) == page.keys
    assert b"".join(chunk.columns.values for chunk in found) == page.values
    assert max(map(len, messages)) < limits.MESSAGE_BYTES


def test_a_page_without_elements_is_a_message_for_its_token() -> None:
    (chunk,) = read(dumps.chunks(Page(0, b"", b"", b"token"), described(), 4))
    assert (chunk.columns.count, chunk.token) == (0, b"token")


def test_elements_larger_than_a_chunk_go_one_by_one() -> None:
    size = limits.CHUNK_MAX_BYTES
    page = Page(2, bytes(8), bytes(2 * size), b"token")
    found = read(dumps.chunks(page, described(value_size=size), size))
    assert [chunk.columns.count for chunk in found] == [1, 1]


def test_a_trailer_tells_how_it_went() -> None:
    found = Trailer(
        entries=7,
        complete=False,
        incomplete_reason="gave up",
        method="next_key",
        restarts=2,
        duplicates_suppressed=3,
        started_at=1.5,
        ended_at=2.25,
        map_id=41,
    )
    message = dumps.trailer(found, "00ff").trailer
    assert (message.entries, message.complete, message.incomplete_reason) == (7, False, "gave up")
    assert (message.method, message.restarts, message.duplicates_suppressed) == ("next_key", 2, 3)
    assert (message.started_at.ToNanoseconds(), message.ended_at.ToNanoseconds()) == (1.5e9, 2.25e9)
    assert (message.map_id, message.epoch) == (41, "00ff")
