"""What the inspector takes as ReadMe would, and what it answers to everything else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from readme_metrics.inspector import routes
from readme_metrics.inspector.desk import Desk
from readme_metrics.inspector.routes import Routes
from readme_metrics.inspector.wire import MAX_FAULTS, NotEntries, read_entries
from tests.inspector_helpers import KEY, figures, open_page, post, said, wire_entry

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from readme_metrics.inspector import Inspector


def changed(path: str, value: object) -> dict[str, Any]:
    """A valid entry with one field changed; ``...`` takes it out."""
    entry = wire_entry()
    *steps, last = (int(step) if step.isdecimal() else step for step in path.split("/"))
    at: Any = entry
    for step in steps:
        at = at[step]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return entry


def test_entries_with_any_key_are_taken_and_shown(inspector: Inspector) -> None:
    with open_page(inspector) as live:
        answer = post(inspector, wire_entry("http://api.test/a?b=1", method="PUT", status=404), wire_entry())
        rows = live.next(lambda update: update["rows"])["rows"]
    assert (200, {"received": 2}) == (answer.status_code, answer.json())
    assert ("PUT", "/a?b=1", 404, "Ada", 1) == tuple(
        rows[0][name] for name in ("method", "path", "status", "caller", "times")
    )
    assert [1, 2] == [row["seq"] for row in rows]


@pytest.mark.parametrize("auth", [None, ("", ""), ("", "only a password")])
def test_without_a_key_nothing_is_taken(inspector: Inspector, auth: tuple[str, str] | None) -> None:
    answer = requests.post(f"{inspector.url}/v1/request", json=[wire_entry()], auth=auth, timeout=10)
    assert 401 == answer.status_code
    assert "Basic" in answer.headers["WWW-Authenticate"]
    assert (0, 1) == (figures(inspector)["figures"]["entries"], figures(inspector)["figures"]["refused"])


LOG = "request/log/entries/0"


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        ("_id", ..., "entry 1: _id is missing"),
        ("_id", "7", "entry 1: _id must be a lower-case UUID, found a text"),
        ("_version", 2, "entry 1: _version must be 3, found the number 2"),
        ("_version", True, "entry 1: _version must be 3, found true"),
        ("development", "no", "entry 1: development must be true or false, found a text"),
        ("clientIPAddress", None, "entry 1: clientIPAddress must be a text, found null"),
        ("group", [], "entry 1: group must be an object, found an empty array"),
        ("group/id", "", "entry 1: group.id must be a text that is not empty, found an empty text"),
        ("group/label", None, "entry 1: group.label must be a text, found null"),
        ("request/log/creator/name", ..., "entry 1: request.log.creator.name is missing"),
        ("request/log/entries", [], "entry 1: request.log.entries must hold exactly 1, found 0"),
        (f"{LOG}/startedDateTime", "now", "startedDateTime must be a time like 2026-01-31T12:00:00.123Z"),
        (f"{LOG}/startedDateTime", "2026-01-31T12:00:00", "startedDateTime must be a time like"),
        (f"{LOG}/time", -1, "entry 1: request.log.entries[0].time must be a number, 0 or more, found the number -1"),
        (f"{LOG}/timings/wait", ..., "entry 1: request.log.entries[0].timings.wait is missing"),
        (f"{LOG}/request/method", ..., "entry 1: request.log.entries[0].request.method is missing"),
        (f"{LOG}/request/headers", {"a": "b"}, "request.headers must be an array, found an object"),
        (f"{LOG}/request/headers/1/value", 7, "request.headers[1].value must be a text, found the number 7"),
        (f"{LOG}/request/postData", {"text": ""}, "request.postData.mimeType is missing"),
        (f"{LOG}/response/status", "200", "response.status must be a status from 100 to 999, found a text"),
        (f"{LOG}/response/content/size", 1.5, "response.content.size must be a whole number, found the number 1.5"),
    ],
)
def test_each_fault_names_its_entry_and_field(client: FlaskClient, path: str, value: object, fault: str) -> None:
    posted = [wire_entry(), changed(path, value)]
    answer = client.post("/v1/request", json=posted, auth=KEY)
    assert 400 == answer.status_code
    assert 1 == sum(fault in found for found in said(answer)["errors"]), said(answer)


def test_one_invalid_entry_keeps_the_whole_post_out(client: FlaskClient) -> None:
    client.post("/v1/request", json=[wire_entry(), changed("_id", 1)], auth=KEY)
    assert 0 == said(client.get("/api/figures"))["figures"]["entries"]


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "the body is not JSON"),
        (b"\xff", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b"[NaN]", "NaN is not a JSON value"),
        (b"[1e999]", "1e999 is too large a number"),
        (b"{}", "the body must be an array of one entry or more, found an empty object"),
        (b"[]", "found an empty array"),
        (b'["text"]', "entry 0 must be an object, found a text"),
        (b"[null]", "entry 0 must be an object, found null"),
    ],
)
def test_what_is_no_array_of_entries_is_refused_with_its_reason(client: FlaskClient, body: bytes, fault: str) -> None:
    answer = client.post("/v1/request", data=body, auth=KEY)
    assert 400 == answer.status_code
    assert fault in said(answer)["errors"][0]


def test_a_post_of_a_million_faults_is_told_the_first_few() -> None:
    with pytest.raises(NotEntries) as caught:
        read_entries(b"[" + b"1," * 100_000 + b"1]")
    assert MAX_FAULTS == len(caught.value.faults)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["_id", "group", "group/id", "request", "request/log", LOG, f"{LOG}/request/url", f"{LOG}/time"]
)


@settings(max_examples=60, deadline=None)
@given(path=FIELDS, value=JSON)
def test_whatever_stands_in_a_field_it_is_taken_or_refused_and_never_breaks_the_page(path: str, value: object) -> None:
    client = Routes(Desk()).app().test_client()
    posted = changed(path, value)
    answer = client.post("/v1/request", data=json.dumps([posted]), auth=KEY)
    assert answer.status_code in {200, 400}
    if answer.status_code == 200:
        assert posted == said(client.get(f"/api/entries/{posted['_id']}"))
        said(client.get("/api/har"))


def test_a_post_above_the_limit_is_refused_and_the_next_is_taken(inspector: Inspector) -> None:
    large = wire_entry(text="x" * routes.MAX_POST_BYTES)
    assert 413 == post(inspector, large).status_code
    assert 200 == post(inspector, wire_entry()).status_code
    assert 1 == figures(inspector)["figures"]["refused"]
