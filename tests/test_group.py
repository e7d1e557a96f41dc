"""What a grouping function may return, and what becomes of it."""

from __future__ import annotations

from collections import OrderedDict
from types import MappingProxyType
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readme_metrics.exchange import Group
from readme_metrics.group import EXTRA_KEYS, NO_KEY, NOT_A_MAPPING, GroupReading, read_group


def test_a_whole_group_is_read_as_it_is() -> None:
    returned = {"api_key": "key", "label": "Owl", "email": "owl@example.com"}
    assert GroupReading(Group("key", "Owl", "owl@example.com"), None) == read_group(returned)


def test_none_means_not_logged_and_nothing_to_say() -> None:
    assert GroupReading(None, None) == read_group(None)


def test_label_and_email_may_be_missing() -> None:
    assert GroupReading(Group("key", None, None), None) == read_group({"api_key": "key"})


def test_id_is_taken_where_api_key_is_missing() -> None:
    assert GroupReading(Group("key", None, None), None) == read_group({"id": "key"})


def test_api_key_goes_before_id() -> None:
    assert GroupReading(Group("key", None, None), None) == read_group({"id": "other", "api_key": "key"})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (17, "17"),
        (True, "True"),
        (b"key", "key"),
        ("schlüssel".encode(), "schlüssel"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (bytearray(b"key"), "key"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ("\ud800", "\ud800"),
    ],
)
def test_what_is_no_text_becomes_one(value: object, text: str) -> None:
    returned = {"api_key": value, "label": value, "email": value}
    assert GroupReading(Group(text, text, text), None) == read_group(returned)


def test_a_str_subclass_becomes_plain_text() -> None:
    class Name(str):
        __slots__ = ()

    reading = read_group({"api_key": Name("key")})
    assert reading.group is not None
    assert str is type(reading.group.api_key)


@pytest.mark.parametrize(
    "returned",
    [
        {},
        {"api_key": None},
        {"api_key": ""},
        {"api_key": b""},
        {"label": "Owl"},
        {"id": ""},
        {"api_key": "", "id": "x"},
    ],
)
def test_no_key_is_not_logged_and_said(returned: dict[str, object]) -> None:
    assert GroupReading(None, NO_KEY) == read_group(returned)


@pytest.mark.parametrize("returned", ["key", b"key", 7, ["key"], ("api_key", "key"), {"api_key"}, object(), False])
def test_what_is_not_a_dict_is_not_logged_and_said(returned: object) -> None:
    assert GroupReading(None, NOT_A_MAPPING) == read_group(returned)


def test_extra_keys_are_left_out_and_said() -> None:
    returned = {"api_key": "key", "plan": "gold", 7: "seven"}
    assert GroupReading(Group("key", None, None), EXTRA_KEYS) == read_group(returned)


@pytest.mark.parametrize("kind", [dict, OrderedDict, MappingProxyType])
def test_any_mapping_will_do(kind: type) -> None:
    assert GroupReading(Group("key", None, None), None) == read_group(kind({"api_key": "key"}))


@settings(max_examples=50)
@given(
    st.dictionaries(
        st.sampled_from(["api_key", "id", "label", "email", "plan"]),
        st.none() | st.text() | st.binary() | st.integers() | st.lists(st.integers()),
    )
)
def test_the_callers_dict_is_never_changed(returned: dict[str, object]) -> None:
    before = dict(returned)
    read_group(returned)
    assert before == returned
