"""What a dump leaves out: rows by key or value, columns, and parts of values. Done on columns, nothing by element."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mapd.maps import lpm
from mapd.maps.errors import MapError
from mapd.maps.opened import MapFacts
from mapd.maps.reduce import Reduction, check, reduce
from mapd_api.reasons import Reason
from mapd_api.uapi import MapType

Bytes = npt.NDArray[np.uint8]


class Keys(Protocol):
    """A set of keys."""

    def permits(self, key: bytes) -> bool:
        """Whether it has this one."""
        ...

    def mask(self, keys: Bytes) -> npt.NDArray[np.bool_]:
        """Which of these rows it has."""
        ...


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Some consecutive bytes of a value; ``size`` is at least 1."""

    offset: int
    size: int

    @property
    def end(self) -> int:
        """The byte behind it."""
        return self.offset + self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanOptions:
    """What is wanted of a scan. ``limit`` 0: all; ``token`` of an earlier page of the same map.

    Attributes:
        prefix: only keys that begin with it.
        covered_by: a key of an LPM trie: only prefixes within it, itself included.
        nonzero_values: only where a byte of the value, in any CPU's slot, is not zero.
        reductions: what becomes of all CPUs' slots; they come as one.
        value_range: only these bytes of each value, of the reduced one where there are reductions.
        only: the keys that whoever asks may know of; no page and no token tells of another.
    """

    keys: bool = True
    values: bool = True
    prefix: bytes = b""
    limit: int = 0
    token: bytes = b""
    covered_by: bytes = b""
    nonzero_values: bool = False
    reductions: Sequence[Reduction] = ()
    value_range: ByteRange | None = None
    only: Keys | None = None

    @property
    def filters(self) -> bool:
        """Whether elements may be left out."""
        return bool(self.prefix or self.covered_by or self.nonzero_values or self.only is not None)


class Selection:
    """The options of one scan, checked against the map.

    Attributes:
        value_bytes: of one value as it is handed out; 0 where values are not wanted.
        partial: whoever asks may know of some keys alone.

    Raises:
        MapError: KEY_SIZE_MISMATCH, BAD_SPEC or OPERATION_UNSUPPORTED, with the numbers.
    """

    def __init__(self, options: ScanOptions, facts: MapFacts) -> None:
        self._options = options
        self._facts = facts
        self.partial: bool = options.only is not None
        self._check_keys()
        check(options.reductions, facts)
        whole = facts.info.value_size if options.reductions else facts.value_stride
        self._check_values(whole)
        part = options.value_range
        self.value_bytes: int = (part.size if part else whole) if options.values else 0

    def columns(self, keys: memoryview, values: memoryview) -> tuple[int, bytes, bytes]:
        """Rows, keys and values that are wanted of two columns: copies."""
        facts, options = self._facts, self._options
        key_rows = _rows(keys, facts.key_stride)
        value_rows = _rows(values, facts.value_stride)
        if options.filters:
            mask = self._wanted(key_rows, value_rows)
            key_rows = key_rows[mask]
            value_rows = value_rows[mask] if options.values else value_rows
        return (
            len(key_rows),
            key_rows.tobytes() if options.keys else b"",
            self._shaped(value_rows).tobytes() if options.values else b"",
        )

    def last_known(self, keys: memoryview) -> bytes:
        """The last of these keys that whoever asks may know of, b"" for none."""
        assert self._options.only is not None
        rows = _rows(keys, self._facts.key_stride)
        known = np.flatnonzero(self._options.only.mask(rows))
        return rows[known[-1]].tobytes() if len(known) else b""

    def _wanted(self, keys: Bytes, values: Bytes) -> npt.NDArray[np.bool_]:
        """Which rows pass the filters; 1.7 ms a million keys of 8 bytes."""
        options = self._options
        mask = np.ones(len(keys), np.bool_) if options.only is None else options.only.mask(keys)
        if options.prefix:
            wanted = np.frombuffer(options.prefix, np.uint8)
            mask &= (keys[:, : len(wanted)] == wanted).all(axis=1)
        if options.covered_by:
            mask &= lpm.within(keys.tobytes(), self._facts.key_stride, options.covered_by)
        if options.nonzero_values:
            mask &= _words(values).any(axis=1)
        return mask

    def _shaped(self, values: Bytes) -> Bytes:
        facts, options = self._facts, self._options
        if options.reductions:
            values = reduce(values, options.reductions, facts.slot_stride, facts.info.value_size)
        part = options.value_range
        return values[:, part.offset : part.end] if part else values

    def _check_keys(self) -> None:
        """Refuse filters that no key of this map could pass."""
        options, facts = self._options, self._facts
        for what, key in (("prefix", options.prefix), ("covered_by", options.covered_by)):
            if len(key) > facts.key_stride or (what == "covered_by" and key and len(key) != facts.key_stride):
                raise MapError(
                    Reason.KEY_SIZE_MISMATCH,
                    f"dump {facts.label}: {what} of {len(key)} bytes; keys have {facts.key_stride} bytes",
                    **{**facts.about("dump"), "given": len(key), "expected": facts.key_stride},
                )
        if options.covered_by and facts.info.map_type != MapType.LPM_TRIE:
            raise MapError(
                Reason.OPERATION_UNSUPPORTED,
                f"dump {facts.label}: covered_by is for LPM tries; {facts.type_name} maps take prefix, the first "
                "bytes of a key",
                **facts.about("dump"),
            )

    def _check_values(self, whole: int) -> None:
        """Refuse a range that values of ``whole`` bytes do not have, and parts of values that do not come."""
        options = self._options
        part = options.value_range
        if not options.values and (part or options.reductions):
            what = "value_range" if part else "reductions"
            raise self._bad(f"{what} of a dump of keys alone; ask for the values too, or leave it out")
        if part and (part.size < 1 or part.end > whole):
            reduced = "reduced values" if options.reductions else "values"
            raise self._bad(
                f"value_range of {part.size} bytes from byte {part.offset}; {reduced} have {whole} bytes"
            )

    def _bad(self, why: str) -> MapError:
        return MapError(Reason.BAD_SPEC, f"dump {self._facts.label}: {why}", **self._facts.about("dump"))


def _rows(column: memoryview, stride: int) -> Bytes:
    return np.frombuffer(column, np.uint8).reshape(-1, stride)


def _words(rows: Bytes) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint64]:
    """The same bytes, eight at a time where they can be: an eighth of the work."""
    return rows.view(np.uint64) if rows.shape[1] % 8 == 0 and rows.flags.c_contiguous else rows
