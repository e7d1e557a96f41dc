"""Whose books the inspector shows: those of the one queue that is certain to send to it, or none."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from readme_metrics.cli.group import _books
from readme_metrics.cli.place import place_of_environment
from tests.commanding import KEY, Host
from tests.inspector_helpers import open_page, running_inspector

if TYPE_CHECKING:
    from pathlib import Path

URL = "http://127.0.0.1:4400"
ELSEWHERE = "https://metrics.readme.io"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "queue", URL)


def accepted(host: Host, monkeypatch: pytest.MonkeyPatch, *, server: str | None = None, key: str | None = KEY) -> Any:
    """The figure that an inspector started in this environment shows; None: no books."""
    for name, value in (("README_METRICS_SERVER", server), ("README_API_KEY", key)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    found = _books(place_of_environment(str(host.directory), None), URL)
    return found and found["books"]["accepted"]  # type: ignore[index]  # a Report as a dict


def test_the_books_are_those_of_the_queue_that_sends_here(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.put(3)
    replace(host, server=ELSEWHERE).put(5)
    assert 3 == accepted(host, monkeypatch)


@pytest.mark.parametrize("server", ["http://localhost:4400", "http://LOCALHOST:4400", "http://[::1]:4400"])
def test_the_environments_way_to_write_this_address_is_known(
    host: Host, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    replace(host, server=server).put(3)
    assert 3 == accepted(host, monkeypatch, server=server)


@pytest.mark.parametrize(
    "server", [ELSEWHERE, "http://localhost:4401", "http://localhost", "https://localhost:4400", "http://api.test:4400"]
)
def test_another_servers_books_are_never_shown(host: Host, monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    replace(host, server=server).put(5)
    assert accepted(host, monkeypatch, server=server) is None


@pytest.mark.parametrize("servers", [[], [URL], [ELSEWHERE], [URL, ELSEWHERE]], ids=str)
def test_without_a_key_no_file_is_certain(host: Host, monkeypatch: pytest.MonkeyPatch, servers: list[str]) -> None:
    for server in servers:
        replace(host, server=server).put(1)
    assert accepted(host, monkeypatch, key=None) is None


def test_of_two_files_that_send_here_neither_is_certain(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    localhost = "http://localhost:4400"
    host.put(1)
    replace(host, server=localhost).put(1)
    assert accepted(host, monkeypatch, server=localhost) is None


def test_a_queue_that_has_stored_nothing_yet_has_no_books(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    assert accepted(host, monkeypatch) is None
    host.directory.mkdir(mode=0o700)
    host.file.touch(0o600)
    assert accepted(host, monkeypatch) is None


def test_without_books_the_page_is_told_of_none() -> None:
    with running_inspector(lambda: None) as inspector, open_page(inspector) as live:
        update = live.next(lambda update: update["samples"])
    assert (None, None) == (update["books"], update["samples"][-1]["waiting"])
