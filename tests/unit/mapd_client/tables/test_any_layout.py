"""Whatever a map may hold: from bytes to Arrow, through a file, and back, nothing is lost."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow
import pyarrow.ipc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapd_client.codec import Bytes
from mapd_client.info import ByteOrder
from mapd_client.layouts import Layout
from mapd_client.tables.loading import of_table
from mapd_client.tables.plan import plan
from mapd_client.typed import codec_of
from tests.support.structs import Wanted, images, layouts

pa: Any = pyarrow  # its stubs know half of it
ipc: Any = pyarrow.ipc


def tabled(layout: Layout, data: bytes, byteorder: ByteOrder) -> Any:
    columns = plan(Bytes(1), codec_of(layout).bind(byteorder, 1), byteorder)
    count = len(data) // layout.size
    batch = columns.batch(count, memoryview(bytes(count)), memoryview(data))
    batch.validate(full=True)
    return pa.Table.from_batches([batch])


def packed(layout: Layout, table: Any, byteorder: ByteOrder) -> bytes:
    columns = plan(Bytes(1), codec_of(layout).bind(byteorder, 1), byteorder)
    return b"".join(batch.values for batch in of_table(table, columns, 3))


def through_a_file(table: Any) -> Any:
    sink = io.BytesIO()
    with ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return ipc.open_stream(sink.getvalue()).read_all()


@pytest.mark.parametrize("byteorder", ["little", "big"])
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_table_of_any_layout_comes_back_as_the_same_bytes(
    byteorder: ByteOrder, data: st.DataObject
) -> None:
    layout = data.draw(layouts(Wanted(byteorder=byteorder)))
    drawn = b"".join(data.draw(st.lists(images(layout), min_size=1, max_size=4)))
    table = tabled(layout, drawn, byteorder)
    written = packed(layout, table, byteorder)
    again = tabled(layout, written, byteorder)
    assert again.equals(table) or "nan" in str(table.to_pylist())  # two NaNs are never equal
    assert packed(layout, through_a_file(again), byteorder) == written


@pytest.mark.parametrize("byteorder", ["little", "big"])
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_dtype_of_any_layout_has_its_size_and_copies_every_bit(
    byteorder: ByteOrder, data: st.DataObject
) -> None:
    layout = data.draw(layouts(Wanted(byteorder=byteorder)))
    codec = codec_of(layout).bind(byteorder, 1)
    dtype = np.dtype(codec.dtype)
    assert (dtype.base.itemsize * int(np.prod(dtype.shape)), dtype.hasobject) == (layout.size, False)
