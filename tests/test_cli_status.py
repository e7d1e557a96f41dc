"""``status``: what its first line says, the figures below, its exit status, and what is in ``--json``."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readme_metrics.cli import figures
from readme_metrics.cli.group import measured
from readme_metrics.cli.status_text import Level, findings, lines, speed
from readme_metrics.queue import salvage
from readme_metrics.queue.contract import Activity, Backlog, Books, Drainer, Hold, Report
from tests.commanding import OTHER_KEY, Host

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.metrics_server import MetricsServer

NOW = 1_800_000_000.0
DRAINER = Drainer(4711, "web-1", NOW - 7200, NOW - 0.5)
QUIET = Report(
    path="/var/lib/queue/0123456789abcdef.sqlite",
    books=Books(accepted=10, delivered=10, dead=0, dropped={}, waiting=0, epoch_began_at=NOW - 86_400),
    backlog=Backlog(0, 0, None),
    hold=None,
    activity=Activity(last_success_at=NOW - 240),
    drainer=DRAINER,
    file_bytes=65_536,
    wal_bytes=0,
)
BUSY = replace(
    QUIET,
    books=replace(QUIET.books, accepted=22, waiting=12),
    backlog=Backlog(12, 30_000, NOW - 100),
)


@pytest.fixture
def host(tmp_path: Path, server: MetricsServer) -> Host:
    return Host(tmp_path / "queue", server.url)


def _told(report: Report) -> tuple[Level, str] | None:
    found = findings(report, NOW)
    return (found[0].level, found[0].sentence) if found else None


# -- the first line


def test_nothing_wrong_finds_nothing() -> None:
    assert [] == findings(QUIET, NOW)
    assert [] == findings(BUSY, NOW)


def test_a_hold_is_told_with_its_reason_and_since_when() -> None:
    held = replace(BUSY, hold=Hold(NOW + 60, 300, "later", "503 Service Unavailable"))
    sentence = f"Delivery is stopped since {figures.moment(NOW - 100, NOW)}: 503 Service Unavailable."
    assert (Level.WARNING, f"{sentence} 12 entries wait, none is lost.") == _told(held)


@pytest.mark.parametrize("kind", ["refused", "misdirected"])
def test_a_hold_that_a_person_must_mend_is_wrong(kind: str) -> None:
    told = _told(replace(BUSY, hold=Hold(NOW + 60, 300, kind, "401 Unauthorized")))
    assert told is not None
    assert Level.WRONG == told[0]


def test_while_a_hold_that_is_over_is_tried_delivery_is_still_stopped() -> None:
    report = replace(BUSY, hold=Hold(NOW - 1, 300, "later", "503"))
    told = _told(report)
    assert told is not None
    assert told[1].startswith("Delivery is stopped since ")
    assert "over: the next attempt is under way" in " ".join(lines(report, NOW, None))


def test_a_drainer_without_a_sign_of_life_is_named() -> None:
    told = _told(replace(BUSY, drainer=replace(DRAINER, seen_at=NOW - 42)))
    assert told is not None
    assert Level.WRONG == told[0]
    assert told[1].startswith("process 4711 on web-1 drains but gave no sign of life since ")


def test_entries_that_nobody_drains_are_told_with_what_to_do() -> None:
    told = _told(replace(BUSY, drainer=None))
    assert told is not None
    assert Level.WARNING == told[0]
    assert "nobody drains: start the app, or run readme-metrics flush." in told[1]


def test_books_that_do_not_balance_come_first() -> None:
    report = replace(BUSY, drainer=None, books=replace(BUSY.books, delivered=7))
    assert (
        Level.WRONG,
        "The books do not balance: +3 entries are unaccounted for. Please report it.",
    ) == _told(report)


def test_losses_and_dead_letters_are_told_even_when_all_goes_well_now() -> None:
    books = Books(20, 10, 3, {"queue full": 7}, 0, 1, NOW - 60, {"no space": 5})
    since = figures.moment(NOW - 60, NOW)
    told = [finding.sentence for finding in findings(replace(QUIET, books=books), NOW)]
    assert [
        f"Not stored at all since {since}: no space 5. readme-metrics doctor looks for why.",
        f"7 entries dropped since {since}, the queue was full: raise max_queue_bytes.",
        "3 dead letters: readme-metrics dead-letters list.",
    ] == told


# -- the figures


def test_every_line_fits_80_columns() -> None:
    books = Books(
        10**9, 10**9 - 19, 3, {"queue full": 7, "purged": 2}, 7, 4, NOW, {"no space": 5, "file locked": 10**8}
    )
    report = replace(
        QUIET,
        books=books,
        hold=Hold(NOW + 60, 300, "later", "no connection: " + "a long reason of the operating system " * 4),
        activity=Activity(NOW - 1, NOW - 2, "no connection: " + "reason " * 30, 3, 1000),
        backlog=Backlog(7, 10**10, NOW - 10**6),
    )
    shown = "\n".join(lines(report, NOW, speed(BUSY, QUIET, 1.0)))
    assert [] == [line for line in shown.splitlines() if len(line) > 80]
    assert "for 1 min more" in shown


def test_speed_is_what_left_and_empties_by_what_is_left_over() -> None:
    second = replace(BUSY, books=replace(BUSY.books, accepted=26, delivered=18, waiting=8))
    measured_ = speed(BUSY, second, 2.0)
    assert (4.0, 4.0) == (measured_.drains_per_s, measured_.empty_in_s)


def test_where_as_much_comes_as_goes_no_end_is_promised() -> None:
    second = replace(BUSY, books=replace(BUSY.books, accepted=30, delivered=18, waiting=12))
    assert speed(BUSY, second, 1.0).empty_in_s is None


def test_the_books_are_looked_at_twice_only_where_something_moves() -> None:
    slept: list[float] = []
    later = replace(BUSY, books=replace(BUSY.books, delivered=22, waiting=0))
    clock = iter((0.0, 2.0))
    still = [QUIET, replace(BUSY, drainer=None), replace(BUSY, hold=Hold(NOW + 1, 1, "later", "503"))]
    assert (still, {}) == measured(still, sleep=slept.append, now=lambda: NOW)
    assert [] == slept
    reports, speeds = measured([BUSY], read=lambda _: later, sleep=slept.append, clock=lambda: next(clock))
    assert [later] == reports
    assert 6.0 == speeds[BUSY.path].drains_per_s
    assert [1.0] == slept


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-3, "0.0 s"),
        (0.04, "0.0 s"),
        (0.44, "0.4 s"),
        (12, "12 s"),
        (59.6, "1 min"),
        (250, "4 min 10 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (40_000, "11 h"),
        (90_000, "1 d 1 h"),
        (1_000_000, "11 d"),
    ],
)
def test_ages_are_shown_in_human_units(seconds: float, shown: str) -> None:
    assert shown == figures.span(seconds)


@pytest.mark.parametrize(
    ("size_bytes", "shown"), [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB")]
)
def test_sizes_are_shown_in_human_units(size_bytes: int, shown: str) -> None:
    assert shown == figures.size(size_bytes)


@given(st.text())
def test_no_text_can_steer_a_terminal(text: str) -> None:
    shown = figures.printable(text)
    assert [] == [each for each in shown if not each.isprintable() and each != "\n"]
    shown.encode()


# -- the command


def test_status_shows_every_file_and_names_the_directory(host: Host) -> None:
    host.put(3)
    host.put(2, key=OTHER_KEY)
    ran = host.run("status")
    assert (0, "") == (ran.status, ran.err)
    assert "All is well: 5 entries wait." == ran.out.splitlines()[0]
    assert f"Directory {host.directory}" in ran.out
    assert f"Queue {host.file.name} (this key and server)" in ran.out
    assert f"Queue {host.file_of(OTHER_KEY).name} (another key and server)" in ran.out
    assert [] == [line for line in ran.out.splitlines() if len(line) > 80 and "Directory" not in line]


def test_status_needs_no_key(host: Host) -> None:
    host.put(1)
    ran = host.run("status", README_API_KEY=None)
    assert 0 == ran.status
    assert f"Queue {host.file.name}\n" in ran.out


def test_an_empty_place_is_said_to_be_one(host: Host) -> None:
    ran = host.run("status")
    assert 0 == ran.status
    assert "No queue file is there. Is it the app's queue_path?" in ran.out


def test_books_that_do_not_balance_exit_with_1(host: Host) -> None:
    host.put(3)
    with closing(sqlite3.connect(host.file)) as connection:
        connection.execute("UPDATE ledger SET delivered = delivered + 1")
        connection.commit()
    ran = host.run("status")
    assert 1 == ran.status
    assert "The books do not balance: -1 entries are unaccounted for." in ran.out.splitlines()[0]
    assert 1 == host.run("status", "--json").status


def test_a_file_that_cannot_be_read_is_named_and_exits_with_74(host: Host) -> None:
    host.put(1)
    garbage = host.directory / "ffffffffffffffff.sqlite"
    garbage.write_bytes(b"no database" * 1000)
    ran = host.run("status", "--json")
    told = json.loads(ran.out)
    assert 74 == ran.status
    assert [str(garbage)] == [each["path"] for each in told["unreadable"]]
    assert [str(host.file)] == [each["path"] for each in told["queues"]]
    assert str(garbage) in host.run("status").out.partition("Directory")[0]


def _names(value: object) -> Iterable[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _names(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _names(inner)


def test_json_names_only_what_help_tells_of(host: Host) -> None:
    host.put(3)
    host.hold()
    told = json.loads(host.run("status", "--json").out)
    help_text = " ".join(host.run("status", "--help").out.split())
    assert [] == [name for name in _names(told) if name not in help_text]
    assert (3, True, "later", None) == (
        told["queues"][0]["books"]["waiting"],
        told["queues"][0]["books"]["balanced"],
        told["queues"][0]["hold"]["kind"],
        told["queues"][0]["drains_per_s"],
    )


def test_looking_changes_nothing(host: Host) -> None:
    host.put(3)
    before = host.file.read_bytes()
    host.run("status")
    assert before == host.file.read_bytes()
    assert [host.file.name] == [path.name for path in host.directory.glob("*.sqlite*")]


def test_logs_that_stand_beside_the_file_are_told(host: Host) -> None:
    host.put(1)
    salvage.leave_beside(host.file, [b"{}"])
    [left] = salvage.unsaved_files(host.directory)
    assert host.run("status").out.startswith(f"{left.name} holds logs ")
    assert [str(left)] == json.loads(host.run("status", "--json").out)["unsaved"]
