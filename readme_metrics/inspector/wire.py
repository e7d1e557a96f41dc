"""What ReadMe's server takes, checked field by field: each fault names its entry's index and its field. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Final, NoReturn, TypedDict, cast

MAX_FAULTS: Final = 20
"""Faults told of one POST: enough to mend by, little enough to log."""

Rule = Callable[[object, str], Iterator[str]]
"""Takes a value and where it stands, yields its faults."""


class _GroupId(TypedDict):
    id: str


class Group(_GroupId, total=False):
    """Who called."""

    label: str
    email: str


class Request(TypedDict):
    """The parts of a HAR request that the list shows."""

    method: str
    url: str


class Response(TypedDict):
    """The part of a HAR response that the list shows."""

    status: int


class _HarEntryParts(TypedDict):
    startedDateTime: str
    time: float
    request: Request
    response: Response


class HarEntry(_HarEntryParts, total=False):
    """One HAR 1.2 entry."""

    pageref: str


class Log(TypedDict):
    """A HAR log of one entry."""

    entries: list[HarEntry]


class LogHolder(TypedDict):
    """What stands under an entry's ``request``."""

    log: Log


class Entry(TypedDict):
    """One entry of a POST, as far as the inspector reads it; the rest is kept and shown, too."""

    _id: str
    development: bool
    group: Group
    request: LogHolder


class NotEntries(ValueError):
    """A POST's body that ReadMe would not take; ``faults`` says why."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


def read_entries(body: bytes) -> list[Entry]:
    """Read a POST's body, or raise ``NotEntries`` with at most ``MAX_FAULTS`` faults."""
    try:
        posted = cast("object", json.loads(body, parse_constant=_no_constant, parse_float=_finite))
    except (ValueError, RecursionError) as error:
        raise NotEntries([f"the body is not JSON: {error}"]) from None
    if not isinstance(posted, list) or not posted:
        raise NotEntries([f"the body must be an array of one entry or more, found {_kind(posted)}"])
    every_fault = (fault for index, item in enumerate(posted) for fault in _ENTRY(item, f"entry {index}"))
    faults = list(islice(every_fault, MAX_FAULTS))
    if faults:
        raise NotEntries(faults)
    return cast("list[Entry]", posted)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number[:20]} is too large a number")
    return value


def _kind(value: object) -> str:
    """What a value is, in JSON's words; a captured text is never repeated in an answer."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return f"the number {str(value)[:20]}"
    empty = "" if value else "empty "
    name = "text" if isinstance(value, str) else "array" if isinstance(value, list) else "object"
    return f"{'an' if empty or name != 'text' else 'a'} {empty}{name}"


def _must_be(wanted: str, holds: Callable[[object], bool]) -> Rule:
    def rule(value: object, at: str) -> Iterator[str]:
        if not holds(value):
            yield f"{at} must be {wanted}, found {_kind(value)}"

    return rule


def _object(required: Mapping[str, Rule], optional: Mapping[str, Rule] | None = None) -> Rule:
    optional = optional or {}

    def rule(value: object, at: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{at} must be an object, found {_kind(value)}"
            return
        yield from (f"{_join(at, name)} is missing" for name in required if name not in value)
        for name, check in {**required, **optional}.items():
            if name in value:
                yield from check(value[name], _join(at, name))

    return rule


def _array(of: Rule, *, length: int | None = None) -> Rule:
    def rule(value: object, at: str) -> Iterator[str]:
        if not isinstance(value, list):
            yield f"{at} must be an array, found {_kind(value)}"
        elif length is not None and len(value) != length:
            yield f"{at} must hold exactly {length}, found {len(value)}"
        else:
            for index, item in enumerate(value):
                yield from of(item, f"{at}[{index}]")

    return rule


def _join(at: str, name: str) -> str:
    return f"{at}.{name}" if ":" in at else f"{at}: {name}"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_stamp(value: object) -> bool:
    try:
        # Python 3.10 reads an offset, not the letter Z.
        return isinstance(value, str) and datetime.fromisoformat(value.replace("Z", "+00:00")).tzinfo is not None
    except ValueError:
        return False


_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)

_text = _must_be("a text", lambda value: isinstance(value, str))
_filled = _must_be("a text that is not empty", lambda value: isinstance(value, str) and value != "")
_boolean = _must_be("true or false", lambda value: isinstance(value, bool))
_whole = _must_be("a whole number", _is_whole)
_duration = _must_be("a number, 0 or more", lambda value: _is_number(value) and cast("float", value) >= 0)
_status = _must_be("a status from 100 to 999", lambda value: _is_whole(value) and 100 <= cast("int", value) <= 999)
_stamp = _must_be("a time like 2026-01-31T12:00:00.123Z", _is_stamp)
_uuid = _must_be("a lower-case UUID", lambda value: isinstance(value, str) and bool(_UUID.fullmatch(value)))
_version = _must_be("3", lambda value: _is_whole(value) and value == 3)

_pairs = _array(_object({"name": _text, "value": _text}))
_post_data = _object(
    {"mimeType": _text},
    {
        "text": _text,
        "params": _array(_object({"name": _text}, {"value": _text, "fileName": _text, "contentType": _text})),
    },
)
_message = {
    "httpVersion": _text,
    "headers": _pairs,
    "cookies": _array(_object({"name": _text, "value": _text})),
    "headersSize": _whole,
    "bodySize": _whole,
}
_request = _object({"method": _filled, "url": _filled, "queryString": _pairs, **_message}, {"postData": _post_data})
_content = _object({"size": _whole, "mimeType": _text}, {"text": _text, "encoding": _text})
_response = _object({"status": _status, "statusText": _text, "redirectURL": _text, "content": _content, **_message})
_har_entry = _object(
    {
        "startedDateTime": _stamp,
        "time": _duration,
        "request": _request,
        "response": _response,
        "cache": _object({}),
        "timings": _object({"send": _duration, "wait": _duration, "receive": _duration}),
    },
    {"pageref": _text},
)
_log = _object(
    {
        "version": _filled,
        "creator": _object({"name": _filled, "version": _filled}, {"comment": _text}),
        "entries": _array(_har_entry, length=1),
    }
)
_ENTRY = _object(
    {
        "_id": _uuid,
        "_version": _version,
        "development": _boolean,
        "clientIPAddress": _text,
        "group": _object({"id": _filled}, {"label": _text, "email": _text}),
        "request": _object({"log": _log}),
    }
)
