"""What a list takes out, where, and that nothing else changes."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readme_metrics import json_splice
from readme_metrics.redaction import Redaction, mask

SECRET = Redaction(denylist=["secret", "user.secret"])
ONLY = Redaction(allowlist=["open", "user.name"])
NO_LIST = Redaction()


# Masking


def test_a_mask_is_the_hash_and_the_last_four_characters() -> None:
    expected = f"sha512-{base64.b64encode(hashlib.sha512(b'key-1234').digest()).decode()}?1234"
    assert expected == mask("key-1234")


@pytest.mark.parametrize("key", ["ключ", "\ud800\udc00", "\udfff", "k" * 100_000])
def test_any_text_can_be_masked(key: str) -> None:
    assert mask(key).endswith("?" + key[-4:])


# Lists


def test_a_denylist_overrides_an_allowlist() -> None:
    both = Redaction(allowlist=["secret"], denylist=["secret"])
    assert (both.header("secret", "abc"), both.header("other", "abc")) == ("[REDACTED 3]", "abc")


def test_empty_lists_are_no_lists() -> None:
    assert not Redaction(allowlist=[], denylist=()).active


# Headers


@pytest.mark.parametrize(
    ("lists", "left"),
    [
        (({}, {}), "a=1&b=2&c=3"),
        (({"denylist": ["a"]}, {}), "a=%5BREDACTED%201%5D&b=2&c=3"),
        (({"denylist": ["a"]}, {"denylist": ["c"]}), "a=%5BREDACTED%201%5D&b=2&c=%5BREDACTED%201%5D"),
        (({"allowlist": ["a", "b"]}, {}), "a=1&b=2"),
        (({"allowlist": ["a", "b"]}, {"allowlist": ["b", "c"]}), "b=2"),
        (({"allowlist": ["a", "b"]}, {"denylist": ["b", "c"]}), "a=1"),
        (({"allowlist": ["a", "b"]}, {"denylist": ["A"]}), "b=2"),
        (({"allowlist": ["a", "b"]}, {"denylist": ["a.secret"]}), "b=2"),
        (({"allowlist": ["a"]}, {"allowlist": ["b"]}), ""),
        (({"allowlist": ["a"]}, {"denylist": ["a"]}), ""),
    ],
)
def test_what_either_of_two_joined_lists_takes_is_taken(lists: tuple[Any, Any], left: str) -> None:
    one, two = (Redaction(**each) for each in lists)
    assert [left, left] == [one.joined(two).query("a=1&b=2&c=3"), two.joined(one).query("a=1&b=2&c=3")]


def test_headers_are_named_in_any_case() -> None:
    expected = "[REDACTED 5]"
    assert expected == Redaction(denylist=["X-SECRET"]).header("x-secret", "value")


def test_an_allowlist_drops_every_other_header() -> None:
    redaction = Redaction(allowlist=["X-Open"])
    assert (redaction.header("x-open", "value"), redaction.header("cookie", "value")) == ("value", None)


@pytest.mark.parametrize("name", ["authorization", "proxy-authorization"])
def test_a_key_in_a_header_is_masked(name: str) -> None:
    assert mask("Bearer token") == NO_LIST.header(name, "Bearer token")
    assert mask("Bearer token") == Redaction(allowlist=[name]).header(name, "Bearer token")


def test_a_denied_header_beats_masking() -> None:
    expected = "[REDACTED 12]"
    assert expected == Redaction(denylist=["Authorization"]).header("authorization", "Bearer token")


# URLs


@pytest.mark.parametrize(
    ("url", "left"),
    [
        ("http://h/p", "http://h/p"),
        ("http://h/p?", "http://h/p?"),
        ("http://h/p?secret=abc", "http://h/p?secret=%5BREDACTED%203%5D"),
        ("http://h/p?a=1&secret=abc&b=2", "http://h/p?a=1&secret=%5BREDACTED%203%5D&b=2"),
        ("http://h/p?secret=a&secret=bc", "http://h/p?secret=%5BREDACTED%201%5D&secret=%5BREDACTED%202%5D"),
        ("http://h/p?s%65cret=abc", "http://h/p?s%65cret=%5BREDACTED%203%5D"),
        ("http://h/p?secret=%C3%A4+b", "http://h/p?secret=%5BREDACTED%203%5D"),
        ("http://h/p?secret=", "http://h/p?secret=%5BREDACTED%200%5D"),
        ("http://h/p?secret=a=b?c", "http://h/p?secret=%5BREDACTED%205%5D"),
        ("http://h/p?&&a=1&", "http://h/p?&&a=1&"),
        ("http://h/p?Secret=abc&secrets=a", "http://h/p?Secret=abc&secrets=a"),
        ("http://h/p?user.secret=abc", "http://h/p?user.secret=%5BREDACTED%203%5D"),
        ("/p?a=1#top", "/p?a=1#top"),
        ("/p#secret", "/p#secret"),
        ("/p#secret=abc&a=1", "/p#secret=%5BREDACTED%203%5D&a=1"),
        ("/p#/route?secret=abc", "/p#/route?secret=%5BREDACTED%203%5D"),
        ("http://me:pw@h/p?a=1", "http://me:pw@h/p?a=1"),
        ("", ""),
    ],
)
def test_a_denied_parameter_goes_from_a_url_and_nothing_else_does(url: str, left: str) -> None:
    assert left == SECRET.url(url)


@pytest.mark.parametrize(
    ("url", "left"),
    [
        ("http://h/p?open=1&secret=abc", "http://h/p?open=1"),
        ("http://h/p?secret=abc", "http://h/p"),
        ("http://h/p?secret", "http://h/p"),
        ("http://h/p?open=%20&x&open=2", "http://h/p?open=%20&open=2"),
        ("http://me:pw@h/p?open=1", "http://h/p?open=1"),
        ("//me:pw@h", "//h"),
        ("/a@b/p?open=1", "/a@b/p?open=1"),
        ("http://h/p#token=abc", "http://h/p"),
    ],
)
def test_an_allowlist_leaves_only_its_parameters_in_a_url(url: str, left: str) -> None:
    assert left == ONLY.url(url)


@pytest.mark.parametrize("name", ["p%E4ss", "p%C3%A4ss", "p\xe4ss", "p\xc3\xa4ss"])
def test_a_parameter_is_found_in_utf_8_and_latin_1(name: str) -> None:
    left = f"/?{name}=%5BREDACTED%201%5D"
    assert left == Redaction(denylist=["päss"]).url(f"/?{name}=x")


# JSON


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('{"secret":"abc"}', '{"secret":"[REDACTED 3]"}'),
        ('{ "secret" :\t"abc" , "a" : 1.10 }', '{ "secret" :\t"[REDACTED 3]" , "a" : 1.10 }'),
        ('{"secret":12}', '{"secret":"[REDACTED]"}'),
        ('{"secret":null}', '{"secret":"[REDACTED]"}'),
        ('{"secret":{"a":["b"]}}', '{"secret":"[REDACTED]"}'),
        ('{"secret":"a","secret":"bc"}', '{"secret":"[REDACTED 1]","secret":"[REDACTED 2]"}'),
        ('{"\\u0073ecret":"\\u00e4\\n"}', '{"\\u0073ecret":"[REDACTED 2]"}'),
        ('[{"secret":"a"},{"secret":"b"},3]', '[{"secret":"[REDACTED 1]"},{"secret":"[REDACTED 1]"},3]'),
        ('[[{"secret":"a"}]]', '[[{"secret":"[REDACTED 1]"}]]'),
        ('{"a":{"secret":"kept"}}', '{"a":{"secret":"kept"}}'),
        ('{"user":{"secret":"a","b":1}}', '{"user":{"secret":"[REDACTED 1]","b":1}}'),
        ('{"user":[[{"secret":"a"}],7]}', '{"user":[[{"secret":"[REDACTED 1]"}],7]}'),
        ('{"user":"text"}', '{"user":"text"}'),
        ('{"user.secret":"a"}', '{"user.secret":"[REDACTED 1]"}'),
        ('{"a":1e400,"b":-0,"secret":1e400}', '{"a":1e400,"b":-0,"secret":"[REDACTED]"}'),
        ('{"a":' + "9" * 5000 + ',"secret":1}', '{"a":' + "9" * 5000 + ',"secret":"[REDACTED]"}'),
        ('\ufeff {"secret":"a"}\r\n', '\ufeff {"secret":"[REDACTED 1]"}\r\n'),
        ('{"":{"secret":"kept"},"secret":""}', '{"":{"secret":"kept"},"secret":"[REDACTED 0]"}'),
        ("{ }", "{ }"),
        ("[\n]", "[\n]"),
    ],
)
def test_a_denied_key_loses_its_value_and_the_text_keeps_the_rest(text: str, left: str) -> None:
    assert left == SECRET.json(text)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('{"open":1,"x":2}', '{"open":1}'),
        ('{ "x":2, "open" : 1.10 }', '{ "open" : 1.10 }'),
        ('{"x":2}', "{}"),
        ('{"open":{"x":1}}', '{"open":{"x":1}}'),
        ('{"user":{"name":"n","x":1},"x":2}', '{"user":{"name":"n"}}'),
        ('{"user":[{"name":"n","x":1},"loose"]}', '{"user":[{"name":"n"}]}'),
        ('{"user":"loose"}', "{}"),
        ('{"user.name":"n","user.x":"x"}', '{"user.name":"n"}'),
        ('[{"open":1},{"x":2},"loose",[3]]', '[{"open":1},{},[]]'),
        ('{"x":{"open":1}}', "{}"),
        ('{"\\u006fpen":1,"x":1}', '{"\\u006fpen":1}'),
    ],
)
def test_an_allowlist_leaves_only_its_members(text: str, left: str) -> None:
    assert left == ONLY.json(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        '"secret"',
        "{",
        '{"secret"',
        '{"secret":',
        '{"secret":"a"',
        '{"a":1,}',
        "[1,]",
        "[1 2]",
        "{a:1}",
        "[,1]",
        "{} {}",
        '{"secret":01}',
        '{1:"secret"}',
        '{"secret" "a"}',
        "[",
        "[[]",
        '{"a":"\\u12"}',
        "{]",
        "[}",
        '{"a":1]',
    ],
)
@pytest.mark.parametrize("redaction", [SECRET, ONLY])
def test_what_is_no_json_object_or_array_is_not_taken_for_one(redaction: Redaction, text: str) -> None:
    assert None is redaction.json(text)


def test_a_text_that_turns_out_to_be_no_json_is_not_walked_through_first(monkeypatch: pytest.MonkeyPatch) -> None:
    walks: list[int] = []
    monkeypatch.setattr(json_splice._Splicer, "container", lambda _, start, __: walks.append(start))

    for redaction in (SECRET, ONLY):
        assert None is redaction.json("[" + "1," * 1_000 + '{"secret":1}]x')

    assert [] == walks


@pytest.mark.parametrize("names", [["secret"], [".".join("a" * 2_000)]], ids=["shallow", "deep"])
@pytest.mark.parametrize("is_denied", [True, False], ids=["denylist", "allowlist"])
@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"\\u0061":'], ids=["lists", "objects", "both"])
def test_deep_nesting_is_said_and_breaks_no_stack(opening: str, is_denied: bool, names: list[str]) -> None:
    redaction = Redaction(denylist=names) if is_denied else Redaction(allowlist=names)
    with pytest.raises(RecursionError):
        redaction.json(opening * 100_000)


KEYS = ["secret", "user", "user.secret", "name", "open", "user.name", "", "sec\\u0072et", "\\u0075ser", "é", 'q\\"']
NAMES = st.sets(
    st.sampled_from(["secret", "user.secret", "user", "name", "user.user.secret", "é", ".", "open"]), min_size=1
)
BLANKS = st.text(" \t\r\n", max_size=2)
SCALARS = st.sampled_from(
    ["1", "-1.10", "1e400", "true", "null", '""', '"secret"', '"\\ud800"', '"a\\"]},b"', '"é\U0001f600"']
)


@st.composite
def _documents(draw: st.DrawFn, names: set[str], path: str | None = None, depth: int = 3) -> tuple[str, str]:
    """A JSON text, and what a denylist of these names leaves of it."""
    kind = draw(st.sampled_from(["object", "list"] if path is None else ["object", "list", "scalar"]))
    if kind == "scalar" or depth == 0:
        scalar = draw(SCALARS) if path is not None or depth else "[]"
        return scalar, scalar
    pieces = []
    for _ in range(draw(st.integers(0, 3))):
        before, after = draw(BLANKS), draw(BLANKS)
        if kind == "list":
            text, left = draw(_documents(names, path, depth - 1))
            pieces.append((before + text + after, before + left + after))
        else:
            written = draw(st.sampled_from(KEYS))
            key = json.loads(f'"{written}"')
            child = key if path is None else f"{path}.{key}"
            text, left = draw(_documents(names, child, depth - 1))
            if child in names:
                value = json.loads(text)
                left = f'"[REDACTED {len(value)}]"' if isinstance(value, str) else '"[REDACTED]"'
            head = f'{before}"{written}"{after}:{before}'
            pieces.append((head + text + after, head + left + after))
    opening, closing = "{}" if kind == "object" else "[]"
    texts, lefts = [text for text, _ in pieces], [left for _, left in pieces]
    return opening + ",".join(texts) + closing, opening + ",".join(lefts) + closing


@settings(max_examples=100, deadline=None)
@given(st.data(), NAMES)
def test_a_json_text_keeps_every_character_that_was_not_redacted(data: st.DataObject, names: set[str]) -> None:
    text, left = data.draw(_documents(names))
    assert left == Redaction(denylist=names).json(text)


@settings(max_examples=100, deadline=None)
@given(st.data(), NAMES)
def test_what_an_allowlist_leaves_is_json_and_holds_only_its_keys(data: st.DataObject, names: set[str]) -> None:
    text, _ = data.draw(_documents(set()))
    left = Redaction(allowlist=names).json(text)
    assert left is not None
    assert names >= _shortest_paths(json.loads(left), names, None)


def _shortest_paths(value: object, names: set[str], path: str | None) -> set[str]:
    """Paths to values that an allowlist must have named; what stands inside a named one is not looked at."""
    if isinstance(value, list):
        return set().union(*(_shortest_paths(element, names, path) for element in value))
    if not isinstance(value, dict):
        return {path or ""}
    found: set[str] = set()
    for key, child in value.items():
        child_path = key if path is None else f"{path}.{key}"
        found |= {child_path} if child_path in names else _shortest_paths(child, names, child_path)
    return found


@settings(max_examples=100, deadline=None)
@given(
    st.text('{}[]",:\\u0073 \t1.eE-tfn', max_size=30) | st.text(max_size=20).map(lambda text: f'{{"secret":"{text}"}}'),
    st.sampled_from([SECRET, ONLY]),
)
def test_json_comes_out_as_json_and_what_is_none_is_left_to_others(text: str, redaction: Redaction) -> None:
    try:
        is_container = isinstance(json.loads(text, strict=False), (dict, list))
    except ValueError:
        is_container = False
    left = redaction.json(text)
    assert is_container == (left is not None)
    if left is not None:
        json.loads(left, strict=False)
