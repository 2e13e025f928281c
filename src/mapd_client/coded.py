"""An open map with the codecs of its keys and values: what each part of ``Map`` stands on."""

from __future__ import annotations

import copy
from typing import Any, Generic, TypeVar

from mapd_api.ops import Op
from mapd_client.codec import Bytes, Codec, as_bytes, decoded
from mapd_client.errors import Misuse, Unsupported
from mapd_client.facts_codecs import why_numbers
from mapd_client.handle import MapHandle
from mapd_client.held import Grip
from mapd_client.info import ByteOrder, MapInfo
from mapd_client.layouts import MapLayout
from mapd_client.link import Links
from mapd_client.percpu import of_one_cpu
from mapd_client.replies import Outcome

K = TypeVar("K")
V = TypeVar("V")


class Coded(MapHandle, Generic[K, V]):
    """One open map of keys and values, and how they lie in columns."""

    def __init__(
        self,
        links: Links,
        grip: Grip,
        info: MapInfo,
        key: Codec[K],
        value: Codec[V],
        name: str,
        byteorder: ByteOrder,
    ) -> None:
        super().__init__(links, grip, info, name, key, value)
        self._key = key
        self._key_stride = info.key_stride
        self._value = value
        self._byteorder: ByteOrder = byteorder
        self._layout: MapLayout | None = None

    @property
    def layout(self) -> MapLayout | None:
        """What keys and values are made of, where ``typed`` found it out; else None."""
        return self._layout

    def __repr__(self) -> str:
        why = why_numbers((self._key, self._value))
        known = f"{self._key!r} -> {self._value!r}{f' ({why})' if why else ''}"
        return f"<Map {self._name} {self.info.type_name} {known}>"

    # Inside

    def _recoded(self, key: Codec[Any], value: Codec[Any], layout: MapLayout | None) -> Coded[Any, Any]:
        """The same open map, by the same handle, with other codecs, which are bound."""
        view: Coded[Any, Any] = copy.copy(self)
        view._key, view._value, view._layout = key, value, layout
        view._shown_as, view._answers = key, value
        view._plain, view._known, view._terms = {}, {}, {}
        return view

    def _values(self, outcome: Outcome) -> list[V | None]:
        if not outcome.absent:
            all_of_them: list[V] = decoded(self._value, outcome.values, len(outcome.statuses))
            return list(all_of_them)
        stride = self.info.value_stride
        column = memoryview(outcome.values)
        there = [at for at, status in enumerate(outcome.statuses) if not status]
        present = b"".join(column[at * stride : (at + 1) * stride] for at in there)
        values = iter(decoded(self._value, present, len(there)))
        return [None if status else next(values) for status in outcome.statuses]

    def _slot(self, op: Op) -> Codec[Any]:
        """The codec of one CPU's slot."""
        if not self.info.per_cpu:
            asked = self._asked(op)
            raise Unsupported(
                f"{asked}: cpu= is for per-CPU maps; a map of type {self.info.type_name} has one value per key",
                operation=asked.operation,
                map=asked.map,
            )
        # A map that was opened without codecs is one of bytes.
        return of_one_cpu(self._value) or Bytes(self.info.value_size)

    def _encode_key(self, op: Op, key: K) -> bytes:
        # As _encode, without its arguments: this is done for each call.
        try:
            data = self._key.encode(key)
            if type(data) is not bytes:
                data = as_bytes(self._key, data)
        except Misuse as error:
            raise self._misused(op, "key", error) from None
        if len(data) != self._key_stride:
            raise self._missized(op, "key", len(data), self._key_stride)
        return data
