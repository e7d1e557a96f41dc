"""What a grouping function returned, read into a ``Group``.

The caller logs ``warning`` once per sentence; the sentences are fixed, so they never show a key or a name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from readme_metrics.exchange import Group

NOT_A_MAPPING: Final = (
    "grouping_function returned something that is not a dict, so the request is not logged: return "
    '{"api_key": ..., "label": ..., "email": ...}, or None for a request that shall not be logged'
)
NO_KEY: Final = (
    "grouping_function returned a dict without api_key, so the request is not logged: api_key must tell who called, "
    "return None for a request that shall not be logged"
)
EXTRA_KEYS: Final = "grouping_function returned keys besides api_key, label and email: they are left out"

_KNOWN: Final = frozenset({"api_key", "id", "label", "email"})


class GroupReading(NamedTuple):
    """Who called, and what is to be said about how it was told."""

    group: Group | None
    """None: this request is not logged."""
    warning: str | None
    """One of this module's sentences; None: nothing to say."""


_NOT_LOGGED: Final = GroupReading(None, None)


def read_group(returned: object) -> GroupReading:
    """Read what the grouping function returned, without changing it; errors of a misbehaving mapping pass through."""
    if returned is None:
        return _NOT_LOGGED
    if type(returned) is not dict and not isinstance(returned, Mapping):  # asking an ABC is slow
        return GroupReading(None, NOT_A_MAPPING)
    api_key = _text(returned["api_key"] if "api_key" in returned else returned.get("id"))
    if not api_key:
        return GroupReading(None, NO_KEY)
    group = Group(api_key, _text(returned.get("label")), _text(returned.get("email")))
    return GroupReading(group, None if _KNOWN.issuperset(returned) else EXTRA_KEYS)


def _text(value: object) -> str | None:
    if value is None or type(value) is str:
        return value
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8", "backslashreplace")  # replacing would make one key of two
    return str(value)
