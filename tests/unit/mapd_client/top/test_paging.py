"""Pages of elements, and what changed between two looks."""

from __future__ import annotations

from mapd_client.top.paging import PAGE_BYTES, PAGE_ELEMENTS, Page, Pages, columns, fields, page_elements


def page(*elements: tuple[bytes, bytes], following: bytes = b"") -> Page:
    return Page(
        [key for key, _ in elements],
        [value for _, value in elements],
        [
            {"key": key.hex(), "value.a": value[:1].hex(), "value.b": value[1:].hex()}
            for key, value in elements
        ],
        following,
    )


def test_records_are_fields_and_all_else_is_one() -> None:
    found = fields('{"saddr": "10.0.0.1", "port": 80}', '{"n": {"x": 1, "l": [1, 2]}, "e": {}}')
    assert found == {
        "key.saddr": "10.0.0.1",
        "key.port": "80",
        "value.n.x": "1",
        "value.n.l": "[1, 2]",
        "value.e": "{}",
    }
    assert fields("7", '"0a0b"') == {"key": "7", "value": "0a0b"}


def test_columns_are_all_fields_in_the_order_they_are_met() -> None:
    assert columns([{"key": "1", "value.a": "2"}, {"key": "1", "value.b": "2"}]) == [
        "key",
        "value.a",
        "value.b",
    ]


def test_the_first_look_marks_nothing() -> None:
    pages = Pages()
    pages.take(page((b"k", b"ab")))
    assert (pages.changed, pages.fresh, pages.gone) == (frozenset(), frozenset(), 0)


def test_changed_fields_new_rows_and_those_that_went_are_told() -> None:
    pages = Pages()
    pages.take(page((b"1", b"ab"), (b"2", b"ab"), (b"3", b"ab")))
    pages.take(page((b"2", b"ac"), (b"1", b"ab"), (b"4", b"ab")))
    assert pages.changed == {(0, "value.b")}
    assert pages.fresh == {2}
    assert pages.gone == 1
    pages.take(page((b"2", b"ac"), (b"1", b"ab"), (b"4", b"ab")))
    assert (pages.changed, pages.fresh, pages.gone) == (frozenset(), frozenset(), 0)


def test_pages_go_forward_by_tokens_and_back_the_same_way() -> None:
    pages = Pages()
    assert not pages.forward()
    pages.take(page((b"1", b"ab"), following=b"x"))
    assert pages.forward()
    assert (pages.start, pages.number, pages.page) == (b"x", 2, None)
    pages.take(page((b"2", b"ab")))
    assert not pages.forward()
    assert pages.back()
    assert (pages.start, pages.number) == (b"", 1)
    assert not pages.back()


def test_another_page_is_not_compared_with_the_one_before() -> None:
    pages = Pages()
    pages.take(page((b"1", b"ab"), following=b"x"))
    pages.forward()
    pages.take(page((b"2", b"ab")))
    assert pages.fresh == frozenset()


def test_a_page_has_a_bound_in_elements_and_in_bytes() -> None:
    assert page_elements(0) == page_elements(16) == PAGE_ELEMENTS
    assert page_elements(PAGE_BYTES // 4) == 4
    assert page_elements(2 * PAGE_BYTES) == 1
