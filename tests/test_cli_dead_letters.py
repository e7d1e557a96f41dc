"""``dead-letters``: shown with their reason, sent again, deleted; the books balance throughout."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.commanding import OTHER_KEY, Host, ended

if TYPE_CHECKING:
    from pathlib import Path

    from tests.metrics_server import MetricsServer


@pytest.fixture
def host(tmp_path: Path, server: MetricsServer) -> Host:
    return Host(tmp_path / "queue", server.url)


@pytest.fixture
def buried(host: Host) -> list[str]:
    """Three entries, the first two set aside."""
    ids = host.put(3)
    host.bury()
    host.bury(status=422, answer="\x1b[2Jwiped")
    return ids


def test_list_shows_each_with_its_reason_and_its_request(host: Host, buried: list[str]) -> None:
    ran = host.run("dead-letters", "list")
    _, head, *rows = ran.out.splitlines()
    assert 0 == ran.status
    assert ["ID", "AGE", "SIZE", "REASON", "REQUEST"] == head.split()
    assert len(buried) - 1 == len(rows)
    assert rows[0].startswith("1 ")
    assert rows[0].endswith("400 Bad Request  GET http://api.example/")
    assert [] == [row for row in rows if len(row) > 80]


def test_list_as_json_has_the_shape_that_help_tells(host: Host, buried: list[str]) -> None:
    told = json.loads(host.run("dead-letters", "list", "--json").out)
    help_text = host.run("dead-letters", "list", "--help").out
    assert [] == [name for name in [*told, *told["dead_letters"][0]] if name not in help_text]
    assert [400, 422] == [letter["status"] for letter in told["dead_letters"]]
    assert (str(host.directory), str(host.file)) == (told["directory"], told["queue"])


def test_show_prints_the_entry_and_the_answer_and_cannot_steer_the_terminal(host: Host, buried: list[str]) -> None:
    ran = host.run("dead-letters", "show", "2")
    assert 0 == ran.status
    assert f'"_id": "{buried[1]}"' in ran.out
    assert "\\x1b[2Jwiped" in ran.out
    assert "\x1b" not in ran.out


def test_show_as_json_holds_the_whole_entry(host: Host, buried: list[str]) -> None:
    told = json.loads(host.run("dead-letters", "show", "1", "--json").out)
    assert buried[0] == told["entry"]["_id"]
    assert '{"error":"bad"}' == told["answer"]


def test_requeue_sends_again_and_keeps_the_books(host: Host, server: MetricsServer, buried: list[str]) -> None:
    ran = host.run("dead-letters", "requeue", "1")
    assert (0, "1 entry back in the queue; readme-metrics flush sends at once.") == (
        ran.status,
        ran.out.splitlines()[-1],
    )
    books = host.report().books
    assert (3, 1, 2, True) == (books.accepted, books.dead, books.waiting, books.balanced)
    assert 0 == host.run("dead-letters", "requeue", "--all").status
    assert 0 == host.run("flush").status
    assert sorted(buried) == sorted(server.taken_ids)
    books = host.report().books
    assert (3, 0, 3, True) == (books.accepted, books.dead, books.delivered, books.balanced)


def test_purge_deletes_and_books_it_as_dropped(host: Host, buried: list[str]) -> None:
    assert len(buried) == host.report().books.accepted
    ran = host.run("dead-letters", "purge", "--yes")
    books = host.report().books
    assert (0, "2 dead letters deleted.") == (ran.status, ran.out.splitlines()[-1])
    assert (0, {"purged": 2}, True) == (books.dead, books.dropped, books.balanced)


def test_purge_of_one_leaves_the_others(host: Host, buried: list[str]) -> None:
    assert {"directory": str(host.directory), "queue": str(host.file), "purged": 1} == json.loads(
        host.run("dead-letters", "purge", "2", "--yes", "--json").out
    )
    assert len(buried) - 2 == host.report().books.dead


def test_purge_without_a_terminal_and_without_yes_deletes_nothing(host: Host, buried: list[str]) -> None:
    ran = host.run("dead-letters", "purge", answer="y\n")
    assert (2, len(buried) - 1) == (ran.status, host.report().books.dead)
    assert "--yes" in ran.err


@pytest.mark.parametrize(
    "wrong", [("requeue",), ("requeue", "1", "--all"), ("requeue", "7"), ("show", "7"), ("purge", "1", "7", "--yes")]
)
def test_wrong_usage_changes_nothing(host: Host, buried: list[str], wrong: tuple[str, ...]) -> None:
    assert 2 == host.run("dead-letters", *wrong).status
    assert len(buried) - 1 == host.report().books.dead


def test_without_any_queue_there_are_none(host: Host) -> None:
    for arguments in (("list",), ("requeue", "--all"), ("purge",)):
        ran = host.run("dead-letters", *arguments)
        assert (0, "No dead letters.") == (ran.status, ran.out.splitlines()[-1])
    assert not host.directory.exists()


def test_without_a_key_the_only_queue_of_the_directory_is_meant(host: Host, buried: list[str]) -> None:
    assert len(buried) - 1 == len(
        json.loads(host.run("dead-letters", "list", "--json", README_API_KEY=None).out)["dead_letters"]
    )
    host.put(1, key=OTHER_KEY)
    ran = host.run("dead-letters", "list", README_API_KEY=None)
    assert 78 == ran.status
    assert "README_API_KEY" in ran.err


def test_both_change_a_queue_that_another_process_drains(host: Host, server: MetricsServer, buried: list[str]) -> None:
    server.go_down()
    code = f"""
import sys
from pathlib import Path
from readme_metrics.queue import open_queue
queue = open_queue(Path({str(host.file)!r}), max_bytes=1 << 40)
assert queue.elect()
queue.put(b"1")
print("drains", flush=True)
sys.stdin.readline()
"""
    drainer = host.start_python("-c", code)
    assert drainer.stdout is not None
    assert "drains\n" == drainer.stdout.readline()
    assert 0 == host.run("dead-letters", "requeue", "1").status
    assert 0 == host.run("dead-letters", "purge", "--yes").status
    assert 0 == ended(drainer).status
    books = host.report().books
    assert (len(buried) + 1, 3, {"purged": 1}, True) == (books.accepted, books.waiting, books.dropped, books.balanced)


def test_those_of_an_earlier_key_are_pointed_out_and_can_be_worked_with(host: Host) -> None:
    host.put(1, key=OTHER_KEY)
    host.bury(key=OTHER_KEY)
    other = str(host.file_of(OTHER_KEY))
    assert f"readme-metrics dead-letters list --file {other}" in host.run("dead-letters", "list").err
    [letter] = json.loads(host.run("dead-letters", "list", "--file", other, "--json").out)["dead_letters"]
    assert f"Queue {other}" in host.run("dead-letters", "show", str(letter["id"]), "--file", other).out
    assert "1 entry back in the queue" in host.run("dead-letters", "requeue", "--all", "--file", other).out
    assert f"readme-metrics flush --file {other}" in host.run("dead-letters", "list").err
    assert "neither here nor in" in host.run("dead-letters", "list", "--file", "nowhere").err
