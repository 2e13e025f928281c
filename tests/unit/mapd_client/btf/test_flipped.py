"""Sound blobs with some bytes changed: refused, or read in full; in both cases soon."""

from __future__ import annotations

from functools import partial
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from mapd_client.btf import Types, kinds
from tests.fuzz.questions import read_all
from tests.support.btfsamples import ORDERS, every_kind, rich
from tests.support.rawbtf import Raw
from tests.unit.mapd_client.btf.steps import steps

WORK = 60
"""Lines of Python for each byte of a blob, all its types asked for; sound ones take 11."""


SOUND = [rich().blob(), *(every_kind(order)[0].blob() for order in ORDERS)]


def test_a_sound_blob_takes_this_much_work() -> None:
    for blob in SOUND:
        assert steps(partial(read_all, blob)) < WORK * len(blob)


@st.composite
def flipped(draw: st.DrawFn) -> bytes:
    """A sound blob; one to three words of it are something else, and one in ten is cut off.

    Most words are of the types, and most changes small: else nearly every blob is refused for its header.
    """
    sound = draw(st.sampled_from(SOUND))
    blob = bytearray(sound)
    order: Literal["little", "big"] = "big" if sound[0] == 0xEB else "little"
    for _ in range(draw(st.integers(1, 3))):
        first = draw(st.sampled_from([6, 6, 6, 0]))
        at = 4 * draw(st.integers(first, len(blob) // 4 - 1))
        word = int.from_bytes(blob[at : at + 4], order)
        changed = draw(
            st.sampled_from([word + 1, word - 1, word ^ 1 << 31, word ^ 1 << 24, 0, 1, 7, 0xFFFF_FFFF])
        )
        blob[at : at + 4] = (changed & 0xFFFF_FFFF).to_bytes(4, order)
    cut = draw(st.sampled_from([0] * 9 + [5]))
    return bytes(blob[: len(blob) - cut])


@settings(max_examples=300, deadline=None)
@given(flipped())
def test_a_changed_blob_is_refused_or_read_and_soon(blob: bytes) -> None:
    assert steps(lambda: read_all(blob)) < WORK * len(blob) + 20_000


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=120), st.sampled_from(ORDERS))
def test_random_records_are_refused_or_read(data: bytes, order: str) -> None:
    raw = Raw("little" if order == "little" else "big")
    raw.strings += b"a\0b\0"
    raw.types = [data + b"\0" * (-len(data) % 4)]
    read_all(raw.blob())


def test_kinds_that_are_met_above_are_all_there_are() -> None:
    met = {type(kind) for blob in SOUND for kind in Types(blob)}
    assert met == set(kinds.KINDS)
