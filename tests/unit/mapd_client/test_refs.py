from __future__ import annotations

import pytest

from mapd_client import Id, MapRef, Misuse, Name, Pin
from mapd_client.refs import as_ref


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("flows", Name("flows")),
        ("ns/flows", Name("ns/flows")),
        ("pin:/sys/fs/bpf/x", Pin("/sys/fs/bpf/x")),
        ("id:42", Id(42)),
    ],
)
def test_each_form_is_read_and_written(text: str, ref: MapRef) -> None:
    assert MapRef.parse(text) == ref
    assert str(ref) == text
    assert as_ref(ref) is ref
    assert as_ref(text) == ref


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "name ''"),
        ("Flows", "name 'Flows'"),
        ("a/b/c", "namespace 'a/b'"),
        ("/sys/fs/bpf/x", "namespace"),
        ("pin:relative", "absolute path"),
        ("pin:/a\0b", "absolute path"),
        ("id:x", "digits"),
        ("id:0", "from 1"),
        ("id:4294967296", "4294967295"),
        ("id:-1", "digits"),
    ],
)
def test_what_is_no_reference_says_which_rule_it_breaks(text: str, why: str) -> None:
    with pytest.raises(Misuse, match=why):
        MapRef.parse(text)
