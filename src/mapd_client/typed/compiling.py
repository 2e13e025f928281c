"""From what bytes mean to a codec of them: a layout compiled for a host's byte order. Sans-I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mapd_client.codec import Codec
from mapd_client.errors import Misuse, SizeMismatch, TypeMismatch
from mapd_client.info import ByteOrder
from mapd_client.layouts import Array, Layout, Opaque, Record, Special
from mapd_client.typed.bits import Bits
from mapd_client.typed.composites import Elements
from mapd_client.typed.hints import Hint, Hinted, resolve
from mapd_client.typed.naming import nearest
from mapd_client.typed.records import Structure
from mapd_client.typed.scalars import Raw, Reader, reader, scalar_codec
from mapd_client.typed.shape import Anonymous, AnySlot, BitSlot, Shape, Slot


def codec_of(layout: Layout, *, hints: Mapping[str, Hint] | None = None, path: str = "value") -> Codec[Any]:
    """The codec of one key or value of a layout.

    A struct or union is read as ``Fields`` and written from them or from any mapping by field name; an array is a
    tuple; a char array is str where that says all of it, else bytes; an enum's value is its name where it has one;
    a pointer is an int. Integers are this library's own codecs, so that sums over CPUs and atomics know them. For a
    per-CPU map, ``PerCpu(codec_of(layout))``.

    Args:
        layout: what the bytes mean.
        hints: codecs for some of the fields by their paths: ``{"key.saddr": Ipv4}``, or by their names ("ipv4").
            The path of an array stands for each of its elements, or for the whole where that, and no element, is of
            the codec's size (``u8[4]``). A path leads through arrays without an index: "value.peers.addr".
        path: what the layout is of, "key" or "value": with it the paths of hints begin, and those in messages. Hints
            of other paths are none of its business.

    Raises:
        Misuse: a hint for a field that is not there, or cannot have one.
        SizeMismatch: a hint of another size than its field.
        TypeMismatch: a layout that no bytes can have.
    """
    mine = {name: resolve(hint) for name, hint in (hints or {}).items() if name.split(".")[0] == path}
    return _codec_of(layout, mine, path, "little", 0)


def _codec_of(
    layout: Layout, hints: Mapping[str, Codec[Any]], path: str, byteorder: ByteOrder, possible_cpus: int
) -> Codec[Any]:
    bound = {name: hint.bind(byteorder, possible_cpus) for name, hint in hints.items()}
    compiler = _Compiler(bound, byteorder)
    codec = compiler.codec(layout, path)
    compiler.check_hints()
    if codec is None:
        codec = Raw(Opaque(size=layout.size))

    def rebind(byteorder: ByteOrder, possible_cpus: int) -> Codec[Any]:
        return _codec_of(layout, hints, path, byteorder, possible_cpus)

    if isinstance(codec, (Structure, Elements)):
        codec.rebind = rebind
        codec.hints = bound
        codec.byteorder = byteorder
    return codec


class _Compiler:
    """One run over a layout."""

    def __init__(self, hints: Mapping[str, Codec[Any]], byteorder: ByteOrder) -> None:
        self._hints = hints
        self._byteorder: ByteOrder = byteorder
        self._used: set[str] = set()
        self._paths: list[str] = []

    def check_hints(self) -> None:
        """Raises Misuse for a hint that met no field."""
        for path in self._hints:
            if path not in self._used:
                raise Misuse(f"hint {path!r}: there is no such field: {nearest(path, self._paths)}")

    def codec(self, layout: Layout, path: str, hint: Codec[Any] | None = None) -> Codec[Any] | None:
        """The codec of what is at ``path``; None for what is the kernel's.

        Args:
            layout: of it.
            path: as users write it.
            hint: of the array that it is an element of.
        """
        if hint is None:
            self._paths.append(path)
            hint = self._hints.get(path)
        if hint is not None:
            self._used.add(path)
            if isinstance(layout, Array) and (hint.size == layout.element.size or hint.size != layout.size):
                return self._array(layout, path, hint)
            return self._hinted(layout, path, hint)
        if isinstance(layout, Record):
            return self._record(layout, path)
        if isinstance(layout, Array):
            return self._array(layout, path, None)
        return scalar_codec(layout, self._byteorder)

    def _hinted(self, layout: Layout, path: str, hint: Codec[Any]) -> Codec[Any]:
        if isinstance(layout, Special):
            raise Misuse(f"hint {path!r}: struct {layout.type_name} belongs to the kernel, nobody reads it")
        if hint.size != layout.size:
            raise _of_another_size(path, hint, layout)
        return Hinted(hint, layout, path)

    def _array(self, layout: Array, path: str, hint: Codec[Any] | None) -> Codec[Any] | None:
        if hint is not None and hint.size not in _sizes(layout):
            raise _of_another_size(path, hint, layout)
        element = self.codec(layout.element, path, hint) if hint else self._element(layout.element, path)
        return None if element is None else Elements(layout, element, path)

    def _element(self, layout: Layout, path: str) -> Codec[Any] | None:
        """An element's codec; its own path is the array's, where no hint is."""
        if isinstance(layout, Record):
            return self._record(layout, path)
        if isinstance(layout, Array):
            return self._array(layout, path, None)
        return scalar_codec(layout, self._byteorder)

    def _record(self, layout: Record, path: str) -> Structure:
        return Structure(self._shape(layout, path))

    def _shape(self, layout: Record, path: str) -> Shape:
        readers: dict[str, Reader] = {}
        slots: list[AnySlot] = []
        for member in layout.members:
            here = f"{path}.{member.name}"
            if member.bits is not None:
                if not member.name or member.name in readers or not member.bits:
                    continue
                self._paths.append(here)
                if here in self._hints:
                    raise Misuse(
                        f"hint {here!r}: it is a bit-field of {member.bits} bits; no codec reads those"
                    )
                bits = Bits.of(member, member.bits, self._byteorder)
                _check_place(layout, here, bits.first, bits.end)
                readers[member.name] = bits.reader()
                slots.append(BitSlot(member.name, bits))
                continue
            _check_place(layout, here, member.offset, member.offset + member.layout.size)
            if member.name in readers:
                continue
            if not member.name:
                if isinstance(member.layout, Record):
                    inner = self._shape(member.layout, path)
                    slots.append(Anonymous(member.offset, inner))
                    for name, read in inner.readers.items():
                        readers.setdefault(name, _moved(read, member.offset, member.layout.size))
                continue
            codec = self.codec(member.layout, here)
            if codec is not None:
                readers[member.name] = reader(codec, member.layout, self._byteorder, member.offset)
                slots.append(Slot(member.name, member.offset, codec))
        return Shape(layout, self._byteorder, path, readers, slots)


def _sizes(layout: Layout) -> list[int]:
    """Of a field, and if it is an array of its elements, and of theirs."""
    return [layout.size, *(_sizes(layout.element) if isinstance(layout, Array) else ())]


def _of_another_size(path: str, hint: Codec[Any], layout: Layout) -> SizeMismatch:
    name = f" ({layout.type_name})" if layout.type_name else ""
    sizes = ", its elements ".join(map(str, _sizes(layout)))
    return SizeMismatch(f"hint {path!r}: {hint!r} is of {hint.size} bytes, the field has {sizes}{name}")


def _check_place(layout: Record, path: str, first: int, end: int) -> None:
    if first < 0 or end > layout.size:
        raise TypeMismatch(
            f"{path}: it ends at byte {end}, and its struct {layout.type_name} has {layout.size} bytes"
        )


def _moved(read: Reader, offset: int, size: int) -> Reader:
    """A reader of an inner record's bytes as one of the outer's."""
    end = offset + size
    return lambda data: read(data[offset:end])
