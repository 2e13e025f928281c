"""numpy arrays over columns and columns of arrays: no copies, the codecs' own layout, errors that say what to do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mapd_client import (
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Bytes,
    Chunk,
    Cidr4,
    Cidr6,
    Codec,
    Ipv4,
    Ipv6,
    Mac,
    Misuse,
    PerCpu,
    SizeMismatch,
    Struct,
    TypeMismatch,
    Unsupported,
    arrays,
    testing,
)
from mapd_client.codec import BadElement, Buffer
from mapd_client.info import ByteOrder
from tests.repo.sources import ROOT, SRC

CPUS = 3

TABLE: list[tuple[Codec[Any], Any, tuple[int, ...]]] = [
    (U8, "u1", ()),
    (U16, "<u2", ()),
    (U32, "<u4", ()),
    (U64, "<u8", ()),
    (I8, "i1", ()),
    (I16, "<i2", ()),
    (I32, "<i4", ()),
    (I64, "<i8", ()),
    (Bytes(5), "u1", (5,)),
    (Ipv4, "u1", (4,)),
    (Ipv6, "u1", (16,)),
    (Mac, "u1", (6,)),
    (Cidr4, [("prefixlen", "<u4"), ("data", "u1", (4,))], ()),
    (Cidr6, [("prefixlen", "<u4"), ("data", "u1", (16,))], ()),
    (Struct("=IHB"), [("f0", "<u4"), ("f1", "<u2"), ("f2", "u1")], ()),
    (Struct(">I2h"), [("f0", ">u4"), ("f1", ">i2"), ("f2", ">i2")], ()),
    (Struct("<16s?d"), [("f0", "S16"), ("f1", "?"), ("f2", "<f8")], ()),
    (Struct("BI"), np.dtype([("f0", "u1"), ("f1", "u4")], align=True), ()),
    (PerCpu(U64), "<u8", (CPUS,)),
    (PerCpu(U16), "<u2", (CPUS,)),
    (PerCpu(Bytes(3)), "u1", (CPUS, 3)),
    (PerCpu(Struct("=IH")), [("f0", "<u4"), ("f1", "<u2")], (CPUS,)),
]

SAMPLES: dict[str, list[Any]] = {
    "Bytes(5)": [b"\0abc\0", b"12345"],
    "Ipv4": [IPv4Address("10.0.0.1"), IPv4Address("255.0.1.2")],
    "Ipv6": [IPv6Address("::1"), IPv6Address("2001:db8::")],
    "Mac": ["02:00:5e:10:00:01", "ff:00:00:00:00:00"],
    "Cidr4": [IPv4Network("10.0.0.0/8"), IPv4Network("1.2.3.4/32")],
    "Cidr6": [IPv6Network("2001:db8::/32"), IPv6Network("::/0")],
    "Struct('=IHB')": [(1, 2, 3), (1 << 31, 1 << 15, 255)],
    "Struct('>I2h')": [(1, -2, 3), (1 << 31, 7, -8)],
    "Struct('<16s?d')": [(b"abc".ljust(16, b"\0"), True, 1.5), (bytes(16), False, -0.25)],
    "Struct('BI')": [(1, 2), (255, 1 << 31)],
    "PerCpu(U64)": [[1, 2, 3], [0, 0, 1 << 63]],
    "PerCpu(U16)": [[1, 2, 3], [0, 0, 1 << 15]],
    "PerCpu(Bytes(3))": [[b"abc", b"def", b"\0\0\1"], [bytes(3)] * 3],
    "PerCpu(Struct('=IH'))": [[(1, 2), (3, 4), (5, 6)], [(0, 0)] * 3],
}

ids = [repr(codec) for codec, _, _ in TABLE]


def bound(codec: Codec[Any], byteorder: ByteOrder = "little") -> Codec[Any]:
    return codec.bind(byteorder, CPUS)


def samples(codec: Codec[Any]) -> list[Any]:
    return SAMPLES.get(repr(codec), [0, 1, 100])


def memory(column: Buffer) -> NDArray[np.uint8]:
    return np.frombuffer(column, np.uint8)


def refused(array: NDArray[Any], codec: Codec[Any]) -> Exception:
    with pytest.raises(BadElement) as caught:
        arrays.column(array, bound(codec), "key")
    assert caught.value.index == 0
    return caught.value.error


@pytest.mark.parametrize(("codec", "dtype", "shape"), TABLE, ids=ids)
def test_numpy_reads_each_codec_in_its_own_layout(
    codec: Codec[Any], dtype: Any, shape: tuple[int, ...]
) -> None:
    codec, values = bound(codec), samples(codec)
    array = arrays.over(codec.encode_many(values), codec, len(values))
    assert (array.dtype, array.shape) == (np.dtype(dtype), (len(values), *shape))


@pytest.mark.parametrize(("codec", "dtype", "shape"), TABLE, ids=ids)
def test_an_array_over_a_column_is_its_memory_and_comes_back_as_it_was(
    codec: Codec[Any], dtype: Any, shape: tuple[int, ...]
) -> None:
    del dtype, shape
    codec, values = bound(codec), samples(codec)
    column = codec.encode_many(values)
    array = arrays.over(column, codec, len(values))
    assert np.shares_memory(array, memory(column))
    assert not array.flags.writeable
    back = arrays.column(array, codec, "key")
    assert back == column
    assert codec.decode_many(bytes(back)) == values
    gaps = codec.stride != array.dtype.itemsize * array[0].size
    padded = gaps or array.dtype == np.dtype([("f0", "u1"), ("f1", "u4")], align=True)
    assert padded or np.shares_memory(memory(back), array), "copied, and there was no padding to be cleaned"


def test_numbers_are_those_that_the_codec_decodes() -> None:
    for codec, values in ((U64, [1, 1 << 63]), (I32, [-5, 7]), (PerCpu(U16), [[1, 2, 3], [4, 5, 6]])):
        inner = bound(codec)
        for byteorder in ("little", "big"):
            inner = bound(codec, byteorder)
            assert arrays.over(inner.encode_many(values), inner, 2).tolist() == values


def test_a_column_of_no_elements_is_an_array_of_none() -> None:
    for codec, _, shape in TABLE:
        array = arrays.over(b"", bound(codec), 0)
        assert array.shape == (0, *shape)
        assert not arrays.column(array, bound(codec), "key").nbytes


INTEGER_DTYPES = ["i1", "u1", "<i2", ">i2", "<u2", "<i4", ">u4", "<i8", ">i8", "<u8", ">u8"]


@given(st.data(), st.sampled_from((U8, I16, U32, I64, U64)), st.sampled_from(INTEGER_DTYPES))
def test_integers_of_any_dtype_become_what_a_list_of_them_becomes(
    data: st.DataObject, codec: Codec[int], given_as: str
) -> None:
    bounds = np.iinfo(np.dtype(given_as))
    numbers = data.draw(st.lists(st.integers(int(bounds.min), int(bounds.max)), min_size=1))
    array = np.array(numbers, given_as)
    bad = [(at, number) for at, number in enumerate(numbers) if not _fits(codec, number)]
    if not bad:
        assert arrays.column(array, codec, "key") == codec.encode_many(numbers)
        return
    with pytest.raises(BadElement) as caught:
        arrays.column(array, codec, "key")
    with pytest.raises(SizeMismatch) as alone:
        codec.encode(bad[0][1])
    assert caught.value.index == bad[0][0]
    assert str(caught.value.error) == f"key of element {bad[0][0]}: {alone.value}"


def _fits(codec: Codec[int], number: int) -> bool:
    with suppress(SizeMismatch):
        codec.encode(number)
        return True
    return False


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1)), min_size=1))
def test_what_lies_in_the_padding_of_records_is_not_sent(rows: list[tuple[int, int]]) -> None:
    codec = Struct("BI")
    array = np.full(len(rows) * codec.size, 0xEE, np.uint8).view(arrays.dtype_of(codec))
    array["f0"], array["f1"] = zip(*rows, strict=True)
    assert arrays.column(array, codec, "key") == codec.encode_many(rows)


class Nested(Codec[bytes]):
    """A codec of the caller's own: a record in a record, both with padding."""

    size = 24

    @property
    def dtype(self) -> Any:
        inner = np.dtype([("a", "u1"), ("b", "<u4")], align=True)
        return np.dtype([("x", "u1"), ("pairs", inner, (2,)), ("y", "u1")], align=True)

    def encode(self, value: bytes) -> bytes:
        return value

    def decode_many(self, column: Buffer) -> list[bytes]:
        return [bytes(column)]


def test_padding_within_nested_records_is_cleaned_too() -> None:
    dtype = arrays.dtype_of(Nested())
    array = np.full(2 * dtype.itemsize, 0xEE, np.uint8).view(dtype)
    array["x"], array["y"] = 1, 2
    array["pairs"]["a"], array["pairs"]["b"] = 3, 4
    clean = np.frombuffer(arrays.column(array, Nested(), "key"), dtype)
    assert (clean == array).all()
    assert sorted(set(clean.tobytes())) == [0, 1, 2, 3, 4]


def test_rows_that_do_not_lie_one_after_the_other_are_copied() -> None:
    numbers = np.arange(20, dtype=np.uint64)
    assert arrays.column(numbers[::2], U64, "key") == U64.encode_many(range(0, 20, 2))
    rows = np.arange(40, dtype=np.uint8).reshape(8, 5).T
    assert arrays.column(rows, Bytes(8), "key") == np.ascontiguousarray(rows).tobytes()
    per_cpu = np.arange(CPUS * 2, dtype=np.uint64).reshape(CPUS, 2).T
    codec = bound(PerCpu(U64))
    assert arrays.column(per_cpu, codec, "value") == codec.encode_many(per_cpu.tolist())


def test_bytes_take_the_memory_of_whatever_has_rows_of_their_size() -> None:
    for array in (
        np.arange(4, dtype="<u4"),
        np.arange(4, dtype=">u4"),
        np.array([b"abcd", b"e"], "S4"),
        np.zeros((3, 2), "<u2"),
        np.zeros(2, [("a", "u1"), ("b", "u1", (3,))]),
        np.array([1.5, 2.5], "<f4"),
    ):
        assert arrays.column(array, Bytes(4), "key") == array.tobytes()


def test_records_may_call_their_fields_as_they_like() -> None:
    array = np.array([(1, 2, 3)], [("source", "<u4"), ("port", "<u2"), ("protocol", "u1")])
    assert arrays.column(array, Struct("=IHB"), "key") == Struct("=IHB").encode((1, 2, 3))


class Float(Codec[float]):
    """A codec of the caller's own that says its dtype."""

    size = 8

    @property
    def dtype(self) -> str:
        return "<f8"

    def encode(self, value: float) -> bytes:
        return np.float64(value).tobytes()

    def decode_many(self, column: Buffer) -> list[float]:
        return [float(number) for number in np.frombuffer(column, "<f8")]


class Plain(Codec[int]):
    """One that says none."""

    size = 8

    def __repr__(self) -> str:
        return "Plain()"

    def encode(self, value: int) -> bytes:
        return U64.encode(value)

    def decode_many(self, column: Buffer) -> list[int]:
        return U64.decode_many(column)


class Lying(Plain):
    """One that says the wrong one."""

    @property
    def dtype(self) -> str:
        return "<u4"


def test_a_codec_of_ones_own_that_says_its_dtype_travels_as_arrays() -> None:
    given = np.array([1.5, -2.0], "f4")
    column = arrays.column(given, Float(), "value")
    assert column == Float().encode_many([1.5, -2.0])
    assert arrays.over(column, Float(), 2).tolist() == [1.5, -2.0]
    assert isinstance(refused(np.array(["a", "b"]), Float()), TypeMismatch)


PLAIN = "Plain() cannot be read by numpy: it has no dtype (Codec.dtype); decode its elements instead"
RECORDS = (
    "keys: an array of dtype uint64, Struct('<II') takes [('f0', '<u4'), ('f1', '<u4')]; array.astype() of "
    "that dtype converts"
)
SUM = (
    "PerCpu(U64).sum() is no array, but all CPUs' values: open the map with PerCpu(U64) and reduce the array's axis 1, "
    "or ask for chunks(reduce=[Reduce('sum', ...)])"
)


@pytest.mark.parametrize(
    ("array", "codec", "kind", "message"),
    [
        (np.zeros((2, 3), "u8"), U64, SizeMismatch, "keys: an array of shape (2, 3), U64 takes (n,)"),
        (np.array(7), U64, SizeMismatch, "keys: an array of shape (), U64 takes (n,)"),
        (np.zeros((2, 3), "u1"), Ipv4, SizeMismatch, "keys: an array of shape (2, 3), Ipv4 takes (n, 4)"),
        (np.zeros(3, "u4"), Ipv4, SizeMismatch, "keys: an array of shape (3,), Ipv4 takes (n, 4)"),
        (
            np.zeros((9, 2), "u8"),
            PerCpu(U64),
            SizeMismatch,
            "keys: an array of shape (9, 2), PerCpu(U64) takes (n, 3)",
        ),
        (np.zeros(2), U64, TypeMismatch, "keys: U64 takes integers, not an array of dtype float64"),
        (np.array([True]), U8, TypeMismatch, "keys: U8 takes integers, not an array of dtype bool"),
        (np.array([1, None]), U64, TypeMismatch, "keys: U64 takes integers, not an array of dtype object"),
        (
            np.zeros(2, "u8"),
            Bytes(4),
            SizeMismatch,
            "keys: an array of shape (2,) and dtype uint64, Bytes(4) takes 4 bytes for each element of its first axis",
        ),
        (
            np.zeros(2, "<u8"),
            Struct("<II"),
            TypeMismatch,
            RECORDS,
        ),
        (np.zeros(2, "u8"), Plain(), Unsupported, PLAIN),
        (np.zeros(2, "u8"), PerCpu(U64).sum(), Unsupported, SUM),
        (np.zeros(2, "u4"), Lying(), Misuse, "Plain(): its dtype uint32 has 4 bytes an element, 8 are due"),
        (
            np.ma.masked_less(np.arange(3), 1),
            U64,
            TypeMismatch,
            "keys: a masked array; pass the elements that count: array.compressed()",
        ),
    ],
)
def test_an_array_that_does_not_fit_is_refused_with_both_sides(
    array: NDArray[Any], codec: Codec[Any], kind: type[Exception], message: str
) -> None:
    error = refused(array, codec)
    assert (type(error), str(error)) == (kind, message)


def test_a_format_that_numpy_has_no_type_for_says_none() -> None:
    assert Struct("<I5p").dtype is None
    with pytest.raises(Unsupported, match=re.escape("Struct('<I5p') cannot be read by numpy")):
        arrays.over(bytes(9), Struct("<I5p"), 1)


# ---- chunks -------------------------------------------------------------------------------------


def chunk(keys: bytes, values: bytes, key: Codec[Any] = U32, value: Codec[Any] = U64) -> Chunk:
    return Chunk(
        count=3,
        keys=memoryview(keys),
        values=memoryview(values),
        key_stride=key.stride,
        value_stride=value.stride,
        token=b"",
        key_codec=key,
        value_codec=value,
    )


def test_the_arrays_of_a_chunk_are_the_memory_of_the_message() -> None:
    keys, values = U32.encode_many([1, 2, 3]), U64.encode_many([4, 5, 6])
    whole = chunk(keys, values)
    assert (whole.keys_array.tolist(), whole.values_array.tolist()) == ([1, 2, 3], [4, 5, 6])
    assert np.shares_memory(whole.keys_array, memory(keys))
    assert np.shares_memory(whole.values_array, memory(values))
    with pytest.raises(ValueError, match="read-only"):
        whole.values_array[0] = 7


def test_a_column_that_was_not_asked_for_is_no_empty_array() -> None:
    with pytest.raises(Misuse, match="values_array: this dump asked for no values"):
        _ = chunk(U32.encode_many([1, 2, 3]), b"").values_array


WITHOUT_NUMPY = """
import sys
sys.modules["numpy"] = None  # importing it fails
import mapd_client
from mapd_client import U32, U64, batches
assert not mapd_client.arrays.is_array([1])
assert [b.keys for b in batches.of_keys([1, 2], U32, 10)] == [U32.encode_many([1, 2])]
assert U64.dtype == "<u8"
column = memoryview(U32.encode_many([1]))
chunk = mapd_client.Chunk(
    count=1, keys=column, values=column, key_stride=4, value_stride=4, token=b"", key_codec=U32, value_codec=U32
)
try:
    chunk.keys_array
except mapd_client.Unsupported as error:
    print(error)
"""


def test_without_numpy_lists_work_and_arrays_say_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_NUMPY], capture_output=True, text=True, check=True)
    assert done.stdout == "arrays need numpy, which is not installed: pip install 'bpf-mapd[numpy]'\n"


def test_importing_the_client_does_not_import_numpy() -> None:
    program = "import sys, mapd_client; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_program_of_the_how_to_prints_what_it_says(tmp_path: Path) -> None:
    """What people paste is run, to the letter."""
    page = (ROOT / "docs" / "how-to" / "arrays.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (printed,) = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    (tmp_path / "traffic.py").write_text(program)
    with testing.daemon() as target:
        done = subprocess.run(
            [sys.executable, "traffic.py"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(SRC), "MAPD_ADDRESS": target},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.stdout, done.stderr) == (printed, "")
