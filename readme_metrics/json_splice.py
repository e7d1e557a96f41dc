"""Take values out of a JSON text by splicing the text itself.

The text is never parsed and written again: ``1.10`` would become ``1.1`` and ``1e400`` no JSON at all. What was not
redacted keeps every character; duplicate keys are all seen; a key counts by what it says, escapes and all. Python's
own scanner tells where a value ends; it is as lenient as most readers (NaN, control characters in strings).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from enum import Enum, auto
from json import JSONDecoder
from typing import Final

BOM: Final = "\ufeff"

_blank: Final = re.compile(r"[ \t\n\r]*")
_decoder: Final = JSONDecoder(strict=False, parse_int=str, parse_float=str)  # a number is only measured, never read
_ESCAPE: Final = re.compile(r"\\u([0-9a-fA-F]{4})")
_CLOSING: Final = {"{": "}", "[": "]"}


def redacted(length: int | None = None) -> str:
    """What stands in place of a value: with its length where it was a text."""
    return "[REDACTED]" if length is None else f"[REDACTED {length}]"


class _Fate(Enum):
    """What happens to the value of a key."""

    KEEP = auto()
    ENTER = auto()
    """A dotted name may reach into it."""
    TAKE = auto()


@dataclass(frozen=True)
class JsonKeys:
    """Names at the top level, dotted ones reaching deeper; lists are transparent."""

    names: frozenset[str]
    only: bool
    """True: all but these names go. False: these go."""
    _parents: frozenset[str] = field(init=False)
    _tails: tuple[str, ...] = field(init=False)
    _quoted: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        """Prepare what every text is asked."""
        splits = ((name.split("."), range(1, name.count(".") + 1)) for name in self.names)
        parents = frozenset(".".join(parts[:depth]) for parts, depths in splits for depth in depths)
        object.__setattr__(self, "_parents", parents)
        last = {name.rpartition(".")[2] for name in self.names}
        object.__setattr__(self, "_tails", tuple({name + '"' for name in last}))
        written = [json.dumps(name, ensure_ascii=False)[1:] for name in last]
        object.__setattr__(self, "_quoted", frozenset(start + name for name in written for start in '".'))

    def fate(self, path: str) -> _Fate:
        """What happens to the value at this path of keys joined by dots; a key spelled with the dot is such a path."""
        if path in self.names:
            return _Fate.KEEP if self.only else _Fate.TAKE
        if path in self._parents:
            return _Fate.ENTER
        return _Fate.TAKE if self.only else _Fate.KEEP

    def cannot_occur(self, text: str) -> bool:
        """Whether a look at the raw text is enough to know that nothing in it is to be taken."""
        return not self.only and "\\" not in text and not any(tail in text for tail in self._tails)

    def are_quoted_in(self, text: str) -> bool:
        """Whether one of the names stands in quotes anywhere in a text that is no JSON itself and may hold some."""
        if "\\u" in text:
            units = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text).encode("utf-16-le", "surrogatepass")
            text = units.decode("utf-16-le", "replace")
        return any(name in text for name in self._quoted)


def splice(text: str, keys: JsonKeys) -> str:
    """Return the text without the values that are to go; valid JSON stays valid JSON.

    ValueError: not a JSON object or array. RecursionError: nested too deep to be read.
    """
    start = _skip(text, 1 if text.startswith(BOM) else 0)
    if text[start : start + 1] not in _CLOSING:
        raise ValueError("not a JSON object or array")
    end = _decoder.raw_decode(text, start)[1]  # in C: a text that is no JSON costs a twentieth of what a walk costs
    if _skip(text, end) != len(text):
        raise ValueError("text after the JSON value")
    if keys.cannot_occur(text):
        return text
    return text[:start] + _Splicer(text, keys).container(start, None)[0] + text[end:]


def is_json(text: str) -> bool:
    """Whether the whole text is one JSON value of any kind; RecursionError: nested too deep to be read."""
    try:
        return _skip(text, _decoder.raw_decode(text, _skip(text, 0))[1]) == len(text)
    except ValueError:
        return False


def _skip(text: str, start: int) -> int:
    return _blank.match(text, start).end()  # type: ignore[union-attr]  # matches the empty text, so it always matches


class _Splicer:
    """One walk through one text; each method starts at an index and returns what to write and where it ended."""

    __slots__ = ("_keys", "_text")

    def __init__(self, text: str, keys: JsonKeys) -> None:
        self._text = text
        self._keys = keys

    def container(self, start: int, path: str | None) -> tuple[str, int]:
        """An object or array: its kept parts, each with the blanks around it."""
        text = self._text
        opening = text[start]
        closing = _CLOSING[opening]
        end = _skip(text, start + 1)
        if text[end : end + 1] == closing:
            return text[start : end + 1], end + 1
        read = self._member if opening == "{" else self._element
        parts: list[str] = []
        end = start
        while True:
            part, end = read(end + 1, path)
            if part is not None:
                parts.append(part)
            if text[end : end + 1] == closing:
                return opening + ",".join(parts) + closing, end + 1
            if text[end : end + 1] != ",":
                raise ValueError("neither a comma nor an end")

    def _member(self, start: int, path: str | None) -> tuple[str | None, int]:
        """A key and its value, up to the comma or end after it; None: the value went, and the key with it."""
        text = self._text
        key_start = _skip(text, start)
        if text[key_start : key_start + 1] != '"':
            raise ValueError("not a key")
        key, key_end = _decoder.raw_decode(text, key_start)
        colon = _skip(text, key_end)
        if text[colon : colon + 1] != ":":
            raise ValueError("no colon")
        value_start = _skip(text, colon + 1)
        child = key if path is None else f"{path}.{key}"
        value, value_end = self._value(value_start, child)
        end = _skip(text, value_end)
        return None if value is None else text[start:value_start] + value + text[value_end:end], end

    def _element(self, start: int, path: str | None) -> tuple[str | None, int]:
        """An element of a list, up to the comma or end after it."""
        value_start = _skip(self._text, start)
        value, value_end = self._entered(value_start, path)
        end = _skip(self._text, value_end)
        return None if value is None else self._text[start:value_start] + value + self._text[value_end:end], end

    def _value(self, start: int, path: str) -> tuple[str | None, int]:
        fate = self._keys.fate(path)
        if fate is _Fate.ENTER:
            return self._entered(start, path)
        value, end = _decoder.raw_decode(self._text, start)
        if fate is _Fate.KEEP:
            return self._text[start:end], end
        if self._keys.only:
            return None, end
        is_text = self._text[start] == '"'
        return f'"{redacted(len(value) if is_text else None)}"', end

    def _entered(self, start: int, path: str | None) -> tuple[str | None, int]:
        """A value that names may reach into; one without keys of its own goes where only the named stay."""
        if self._text[start : start + 1] in _CLOSING:
            return self.container(start, path)
        end = _decoder.raw_decode(self._text, start)[1]
        return None if self._keys.only else self._text[start:end], end
