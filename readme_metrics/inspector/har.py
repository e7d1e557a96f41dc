"""Kept entries as one HAR 1.2 log that browsers' developer tools open. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from readme_metrics.inspector.wire import Entry, HarEntry


def har_log(wires: list[bytes], *, version: str) -> Iterator[bytes]:
    """Yield the file in pieces, so that the whole is never in memory twice.

    HAR 1.2 wants every ``pageref`` to name a page of the log, so each route becomes one.
    """
    pages: dict[str, str] = {}
    creator = {"name": "readme-metrics inspector", "version": version}
    yield b'{"log": {"version": "1.2", "creator": ' + json.dumps(creator).encode() + b', "entries": ['
    for index, wire in enumerate(wires):
        entry = cast("Entry", json.loads(wire))
        har_entry = entry["request"]["log"]["entries"][0]
        if "pageref" in har_entry:
            pages.setdefault(har_entry["pageref"], har_entry["startedDateTime"])
        yield (b",\n" if index else b"\n") + json.dumps(_with_custom_fields(entry, har_entry)).encode()
    yield b'], "pages": ' + json.dumps([_page(name, began) for name, began in pages.items()]).encode() + b"}}\n"


def _with_custom_fields(entry: Entry, har_entry: HarEntry) -> dict[str, object]:
    """HAR 1.2 leaves names with an underscore to whoever writes the file."""
    return {**har_entry, "_id": entry["_id"], "_group": entry["group"], "_development": entry["development"]}


def _page(name: str, began: str) -> dict[str, object]:
    return {"id": name, "title": name, "startedDateTime": began, "pageTimings": {}}
