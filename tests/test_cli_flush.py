"""``flush``: what it sends, what it says, and its exit status."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from readme_metrics.cli.flushing import Ended, Flush
from readme_metrics.queue import open_queue
from readme_metrics.queue.drainer_lock import DrainerLock, read_drainer
from readme_metrics.queue.files import lock_path
from tests.commanding import KEY, OTHER_KEY, PLENTY_BYTES, Host
from tests.metrics_server import Call, MetricsServer, after, answer, refuse_entries

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from tests.delivering import MakeDelivery


@pytest.fixture
def host(tmp_path: Path, server: MetricsServer) -> Host:
    return Host(tmp_path / "queue", server.url)


def test_flush_sends_what_waits_once_and_says_so_in_one_line(host: Host, server: MetricsServer) -> None:
    ids = host.put(25)
    ran = host.run("flush")
    assert (0, "", 1) == (ran.status, ran.err, ran.out.count("\n"))
    assert sorted(ids) == sorted(server.taken_ids)
    assert [5, 10, 10] == sorted(len(post.ids) for post in server.posts)
    assert ran.out.startswith(f"Nothing waits in {host.directory} any more: 25 entries delivered in ")


def test_batch_size_is_the_most_that_one_post_carries(host: Host, server: MetricsServer) -> None:
    host.put(7)
    assert 0 == host.run("flush", "--batch-size", "3").status
    assert [1, 3, 3] == sorted(len(post.ids) for post in server.posts)


def test_json_has_the_shape_that_help_tells(host: Host) -> None:
    host.put(3)
    host.put(2, key=OTHER_KEY)
    ran = host.run("flush", "--json")
    told = json.loads(ran.out)
    assert (0, 3, 0, 0) == (told["exit_status"], told["delivered"], told["waiting"], told["dead"])
    assert [{"path": str(host.file_of(OTHER_KEY)), "waiting": 2, "dead": 0}] == told["other_queues"]
    assert (str(host.directory), str(host.file)) == (told["directory"], told["queue"])
    help_text = host.run("flush", "--help").out
    assert [] == [name for name in told if name not in help_text]


def test_a_directory_that_is_not_there_holds_nothing_and_is_not_made(host: Host) -> None:
    ran = host.run("flush")
    assert 0 == ran.status
    assert f"Nothing waits: {host.directory} does not exist. Is it the app's queue_path?\n" == ran.out
    assert not host.directory.exists()


def test_a_key_that_never_stored_anything_is_told_of_the_queue_beside_it(host: Host, server: MetricsServer) -> None:
    host.put(2, key=OTHER_KEY)
    ran = host.run("flush")
    assert 0 == ran.status
    assert "no entry of this key and server was ever stored there" in ran.out
    assert f"readme-metrics flush --file {host.file_of(OTHER_KEY)}" in ran.err
    assert [] == server.posts


# -- holds and exit statuses


@pytest.mark.parametrize(("kind", "status"), [("later", 75), ("refused", 77), ("misdirected", 78)])
def test_a_running_hold_ends_it_at_once_with_its_reason(
    host: Host, server: MetricsServer, kind: str, status: int
) -> None:
    host.put(3)
    host.hold(kind, "503 Service Unavailable")
    ran = host.run("flush")
    assert status == ran.status
    assert f"3 entries wait in {host.directory}: delivery is held for " in ran.out
    assert "(503 Service Unavailable); --force tries at once" in ran.out
    assert [] == server.posts


def test_nothing_waits_under_a_hold_is_still_success(host: Host) -> None:
    host.put(1)
    assert 0 == host.run("flush").status
    host.hold()
    assert 0 == host.run("flush").status


def test_force_ends_a_hold(host: Host, server: MetricsServer) -> None:
    ids = host.put(12)
    host.hold("refused", "401 Unauthorized")
    assert 0 == host.run("flush", "--force").status
    assert sorted(ids) == sorted(server.taken_ids)


@pytest.mark.parametrize(("code", "status", "fix"), [(401, 77, "README_API_KEY"), (404, 78, "README_METRICS_SERVER")])
def test_a_refusal_keeps_every_entry_and_names_the_fix(
    host: Host, server: MetricsServer, code: int, status: int, fix: str
) -> None:
    host.put(3)
    server.behave(answer(code))
    ran = host.run("flush")
    assert (status, 3) == (ran.status, host.report().books.waiting)
    assert fix in ran.out


def test_a_server_that_is_away_leaves_every_entry_and_75(host: Host, server: MetricsServer) -> None:
    host.put(3)
    server.go_down()
    ran = host.run("flush")
    assert (75, 3) == (ran.status, host.report().books.waiting)
    assert "3 entries wait" in ran.out
    assert "Connection refused" in ran.out
    assert "" == ran.err


def test_time_up_leaves_the_rest_and_sends_nothing_twice(host: Host, server: MetricsServer) -> None:
    ids = host.put(60)
    server.behave(after(0.2, answer()))
    ran = host.run("flush", "--max-time", "0.5", "--batch-size", "1")
    waiting = host.report().books.waiting
    assert 75 == ran.status
    assert 0 < waiting < 60
    assert f"{waiting} entries wait" in ran.out
    assert "time is up" in ran.out
    server.behave(answer())
    assert 0 == host.run("flush").status
    assert sorted(ids) == sorted(server.taken_ids)


def test_what_the_server_rejects_is_set_aside_and_pointed_out(
    host: Host, server: MetricsServer, caplog: pytest.LogCaptureFixture
) -> None:
    ids = host.put(10)
    server.behave(refuse_entries({ids[4]}))
    ran = host.run("flush")
    assert (0, 1, 9) == (ran.status, host.report().books.dead, host.report().books.delivered)
    assert "9 entries delivered" in ran.out
    assert "1 set aside (readme-metrics dead-letters list)" in ran.out
    assert [] == [record for record in caplog.records if record.name == "readme_metrics.drain"]  # told twice


# -- not configured, not allowed, not readable


def test_without_a_key_it_says_which_variable_to_set(host: Host) -> None:
    ran = host.run("flush", README_API_KEY=None)
    assert 78 == ran.status
    assert "set README_API_KEY" in ran.err


def test_a_wrong_server_address_is_not_configured(host: Host) -> None:
    ran = host.run("flush", README_METRICS_SERVER="metrics.readme.io")
    assert 78 == ran.status
    assert "README_METRICS_SERVER is 'metrics.readme.io'" in ran.err


@pytest.mark.parametrize("command", [("flush",), ("status",), ("dead-letters", "list")])
def test_another_user_is_told_whose_queue_it_is(
    host: Host, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    host.put(1)
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    ran = host.run(*command, README_API_KEY=None)
    assert 77 == ran.status
    assert "run as that user (sudo -u " in ran.err


@pytest.mark.parametrize("command", [("flush",), ("status",), ("dead-letters", "list")])
def test_a_directory_that_cannot_be_used_is_not_taken_for_an_empty_one(
    host: Host, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    host.put(1)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read anything
    assert 74 == host.run(*command).status
    in_the_way = host.directory / "file"
    in_the_way.touch()
    monkeypatch.undo()
    for wrong in (in_the_way, in_the_way / "queue"):
        ran = host.run(*command, README_METRICS_QUEUE_PATH=str(wrong))
        assert 74 == ran.status
        assert "README_METRICS_QUEUE_PATH" in ran.err


def test_garbage_is_unreadable_and_left_alone(host: Host) -> None:
    host.directory.mkdir()
    host.file.write_bytes(b"not a database at all" * 100)
    ran = host.run("flush")
    assert 74 == ran.status
    assert f"the queue's file {host.file} cannot be read" in ran.err
    assert b"not a database at all" * 100 == host.file.read_bytes()


def test_a_strangers_database_is_left_alone(host: Host) -> None:
    stranger = host.directory / "shop.sqlite"
    host.directory.mkdir()
    with closing(sqlite3.connect(stranger)) as connection:
        connection.execute("CREATE TABLE orders (id)")
        connection.commit()
    before = stranger.read_bytes()
    assert 74 == host.run("flush", "--file", str(stranger), "--yes").status
    assert before == stranger.read_bytes()


def test_a_file_of_a_newer_release_is_left_alone(host: Host, server: MetricsServer) -> None:
    host.put(1)
    with closing(sqlite3.connect(host.file)) as connection:
        connection.execute("PRAGMA user_version=999")
    ran = host.run("flush")
    assert 74 == ran.status
    assert "upgrade readme-metrics" in ran.err
    assert [] == server.posts


@pytest.mark.parametrize("wrong", [("--max-time", "-1"), ("--batch-size", "0"), ("--nonsense",), ("--file", "nowhere")])
def test_wrong_usage_is_2(host: Host, wrong: tuple[str, ...]) -> None:
    assert 2 == host.run("flush", *wrong).status


# -- files of an earlier key


def test_a_file_of_an_earlier_key_is_not_sent_without_a_person_or_yes(host: Host, server: MetricsServer) -> None:
    host.put(2, key=OTHER_KEY)
    ran = host.run("flush", "--file", str(host.file_of(OTHER_KEY)))
    assert 2 == ran.status
    assert "--yes" in ran.err
    assert [] == server.posts


def test_yes_sends_it_with_the_present_key_whatever_its_hold(host: Host, server: MetricsServer) -> None:
    ids = host.put(2, key=OTHER_KEY)
    host.hold("refused", key=OTHER_KEY)
    ran = host.run("flush", "--file", host.file_of(OTHER_KEY).name, "--yes")
    assert 0 == ran.status
    assert sorted(ids) == sorted(server.taken_ids)
    with MetricsServer() as reference:
        other = Host(host.directory.parent / "other", reference.url, KEY)
        other.put(1)
        other.run("flush")
        wanted = reference.posts[0].headers["authorization"]
    assert [wanted] == [post.headers["authorization"] for post in server.posts]


def test_the_own_file_by_its_name_is_not_asked_about(host: Host) -> None:
    host.put(2)
    assert 0 == host.run("flush", "--file", str(host.file)).status


# -- quiet, and what it leaves behind


def test_quiet_says_nothing_of_what_time_will_mend(host: Host) -> None:
    host.put(1, key=OTHER_KEY)
    host.put(2)
    host.hold()
    assert (75, "", "") == host.run("flush", "--quiet")
    assert (0, "", "") == host.run("flush", "--quiet", "--force")


def test_quiet_tells_what_a_person_must_mend(host: Host, server: MetricsServer) -> None:
    host.put(2)
    server.behave(answer(401))
    ran = host.run("flush", "--quiet")
    assert (77, "") == (ran.status, ran.out)
    assert "README_API_KEY" in ran.err


def test_the_file_is_small_again_afterwards(host: Host) -> None:
    host.put(100, size=100_000)
    assert host.report().file_bytes + host.report().wal_bytes > 9_000_000
    assert 0 == host.run("flush").status
    assert host.report().file_bytes < 1_000_000


def test_a_command_drops_nothing_however_much_waits(host: Host, server: MetricsServer) -> None:
    host.put(40, size=100_000)
    server.go_down()
    assert 75 == host.run("flush").status
    assert (40, {}) == (host.report().books.waiting, host.report().books.dropped)


def test_someone_who_only_looks_at_the_drainer_lock_is_not_taken_for_a_drainer(
    host: Host, server: MetricsServer, deliver: MakeDelivery, stop: threading.Event
) -> None:
    host.put(3)
    looking = DrainerLock(lock_path(host.file))
    assert looking.acquire()
    with closing(open_queue(host.file, max_bytes=PLENTY_BYTES)) as queue:
        said = _Said()
        flush = Flush(
            queue,
            host.file,
            deliver(server.url).send,
            batch_length=10,
            timeout_s=3,
            max_time_s=10,
            stop=stop,
            watcher=said,
            sleep=lambda _: looking.release(),
        )
        assert Ended.EMPTY is flush.run(force=False).ended
    assert ([3], [3], []) == (said.began, said.counts, said.sentences)


class _Said:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.began: list[int] = []
        self.counts: list[int] = []
        self.sentences: list[str] = []

    def begin(self, waiting: int) -> None:
        self.began.append(waiting)

    def settled(self, count: int) -> None:
        self.counts.append(count)

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)


def test_a_slow_post_does_not_make_the_drainer_look_frozen(host: Host, server: MetricsServer) -> None:
    host.put(1)
    moved: list[bool] = []

    def see_the_drainer_live(call: Call) -> None:
        call.read()
        gives_up_at = time.monotonic() + 2.5
        while not moved and time.monotonic() < gives_up_at and not call.wait(0.05):
            drainer = read_drainer(lock_path(host.file))
            if drainer is not None and drainer.seen_at - drainer.since > 0.5:
                moved.append(True)
        call.answer()

    server.behave(see_the_drainer_live)
    assert 0 == host.run("flush").status
    assert [True] == moved
