"""JSON in and out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workerd import PayloadError
from workerd.codec import MAX_BYTES, dumps, loads, storable

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=30)


@given(values)
def test_what_is_json_comes_back_as_it_was(value: object) -> None:
    assert loads(dumps(value, "the value")) == value


def test_keys_become_text() -> None:
    assert loads(dumps({1: "a", None: "b"}, "the value")) == {"1": "a", "null": "b"}


def loop() -> list[object]:
    value: list[object] = []
    value.append(value)
    return value


@pytest.mark.parametrize("value", [{1, 2}, object(), b"bytes", 2**64, "\ud800", 1j])
def test_what_is_not_json_is_refused_by_its_name(value: object) -> None:
    with pytest.raises(PayloadError, match=r"^the payload of f is not JSON: "):
        dumps(value, "the payload of f")


def test_what_has_no_end_is_refused() -> None:
    with pytest.raises(PayloadError, match=r"^the payload of f is nested more than 200 levels deep: "):
        dumps(loop(), "the payload of f")


def test_a_megabyte_is_allowed_and_one_byte_more_is_not() -> None:
    assert len(dumps("x" * (MAX_BYTES - 2), "it")) == MAX_BYTES
    with pytest.raises(PayloadError, match=r"it has 1,000,001 bytes, the limit is 1,000,000: store the data elsewhere"):
        dumps("x" * (MAX_BYTES - 1), "it")
    with pytest.raises(PayloadError, match="it has 1,000,002 bytes"):
        dumps("ä" * (MAX_BYTES // 2), "it")


@pytest.mark.parametrize("value", ["\0", "a\0b", {"\0": 1}, ["\\\0"], "\\\\\0", "\\u0000\0"])
def test_a_nul_character_is_refused(value: object) -> None:
    with pytest.raises(PayloadError, match=r"it contains a NUL character"):
        dumps(value, "it")


@pytest.mark.parametrize("value", ["\\u0000", "\\\\u0000", r'{"json in text": "\u0000"}', "\\u0001", "u0000"])
def test_what_only_reads_like_a_nul_character_is_carried(value: str) -> None:
    assert loads(dumps(value, "it")) == value


@pytest.mark.parametrize("text", ["", "{", "{'a': 1}", "nan", b"\xff", "[" * 2000 + "]" * 2000])
def test_a_text_that_is_not_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(PayloadError, match=r"^not JSON: "):
        loads(text)


@pytest.mark.parametrize(
    ("text", "stored"), [("", ""), ("grün ✓ 🎉\n", "grün ✓ 🎉\n"), ("a\0b", r"a\x00b"), ("a\udcffb", r"a\udcffb")]
)
def test_any_text_becomes_one_that_can_be_stored(text: str, stored: str) -> None:
    assert storable(text) == stored
    stored.encode()
