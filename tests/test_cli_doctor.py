"""``doctor``: each set-up fault found, with its fix, and exit 1 where entries would be lost or none would leave."""

from __future__ import annotations

import json
import os
import socket
import time
from typing import TYPE_CHECKING

import pytest

from readme_metrics.cli import doctor
from readme_metrics.cli.doctor import FAIL, OK, WARN, Check, examine, file_system, server, space, sqlite
from readme_metrics.cli.place import Place
from readme_metrics.cli.reach import Answer, reach
from tests.commanding import KEY, OTHER_KEY, Host
from tests.metrics_server import MetricsServer, answer, drip_head, hang_after_reading

if TYPE_CHECKING:
    from pathlib import Path

    from tests.metrics_server import Behaviour

DISK = "/dev/vda / ext4 rw 0 0\n"
NOW = 1_800_000_000.0


@pytest.fixture
def host(tmp_path: Path, server: MetricsServer) -> Host:
    return Host(tmp_path / "queue", server.url)


def _place(host: Host, *, key: str | None = KEY, chosen: bool = True) -> Place:
    return Place(host.directory, host.server, key, chosen)


def _checks(host: Host, name: str, *, key: str | None = KEY, chosen: bool = True, now: float = NOW) -> list[Check]:
    place = _place(host, key=key, chosen=chosen)
    found = examine(place, mounts=lambda: DISK, ask=lambda *_: Answer(405), now=lambda: now)
    return [check for check in found if check.name == name]


def _levels(checks: list[Check]) -> list[str]:
    return [check.level for check in checks]


# -- the directory and its volume


def test_a_directory_of_ours_alone_is_well(host: Host) -> None:
    host.put(1)
    assert [Check("directory", OK, f"{host.directory} is ours alone")] == _checks(host, "directory")


def test_a_directory_that_can_be_made_is_well_and_is_not_made(host: Host) -> None:
    assert [OK] == _levels(_checks(host, "directory"))
    assert not host.directory.exists()


def test_a_file_in_place_of_the_directory_fails(host: Host) -> None:
    host.directory.write_text("in the way")
    (check,) = _checks(host, "directory")
    assert (FAIL, f"{host.directory} is not a directory") == (check.level, check.text)
    assert "README_METRICS_QUEUE_PATH" in check.fix


def test_a_directory_that_cannot_be_written_fails(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.directory.mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    (check,) = _checks(host, "directory")
    assert FAIL == check.level
    assert "memory only" in check.text


def test_a_directory_that_others_can_read_is_told_with_the_command(host: Host) -> None:
    host.directory.mkdir(mode=0o755)
    host.directory.chmod(0o755)
    assert [f"chmod 700 {host.directory}"] == [check.fix for check in _checks(host, "directory")]


def test_another_users_directory_is_listed_and_its_files_are_not_opened(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.put(1)
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    (check,) = _checks(host, "directory")
    assert FAIL == check.level
    assert "run as that user (sudo -u " in check.text
    assert "to a directory of this user's own" in check.fix
    assert [] == _checks(host, "queue file")


def test_a_directory_that_nobody_chose_in_a_container_fails(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "CONTAINER_SIGNS", (str(tmp_path),))
    assert [FAIL, OK] == _levels(_checks(host, "directory", chosen=False))
    assert [OK] == _levels(_checks(host, "directory", chosen=True))


@pytest.mark.parametrize(
    ("kind", "level"),
    [
        ("ext4", OK),
        ("apfs", OK),
        ("nfs4", FAIL),
        ("cifs", FAIL),
        ("fuse.sshfs", FAIL),
        ("tmpfs", FAIL),
        ("overlay", FAIL),
    ],
)
def test_the_file_system_under_the_directory_is_judged(host: Host, kind: str, level: str) -> None:
    mounts = f"{DISK}thing {host.directory.parent} {kind} rw 0 0\nother {host.directory}-beside tmpfs rw 0 0\n"
    assert level == file_system(host.directory, mounts).level


def test_where_the_system_lists_no_mounts_nothing_is_claimed(host: Host) -> None:
    assert Check("file system", OK, "unknown: this system does not say") == file_system(host.directory, "")


@pytest.mark.parametrize(("free_bytes", "level"), [(1 << 20, FAIL), (100 << 20, WARN), (10 << 30, OK)])
def test_little_space_is_told_before_it_is_none(free_bytes: int, level: str) -> None:
    assert level == space(free_bytes).level


# -- the files


def test_a_well_kept_file_is_well(host: Host) -> None:
    host.put(1)
    (check,) = _checks(host, "queue file", now=time.time())
    assert Check("queue file", OK, f"{host.file.name}: its books balance, 1 entry waiting") == check


def test_entries_that_nobody_sends_are_told_with_what_to_do(host: Host) -> None:
    host.put(1)
    (check,) = _checks(host, "queue file", now=time.time() + 3600)
    assert WARN == check.level
    assert "nobody drains: start the app, or run readme-metrics flush." in check.text


def test_garbage_fails(host: Host) -> None:
    host.directory.mkdir()
    host.file.write_bytes(b"garbage" * 1000)
    assert [FAIL] == _levels(_checks(host, "queue file"))


def test_a_link_in_place_of_the_file_fails(host: Host, tmp_path: Path) -> None:
    host.directory.mkdir()
    host.file.symlink_to(tmp_path / "elsewhere")
    assert [f"rm {host.file}"] == [check.fix for check in _checks(host, "queue file")]


def test_a_file_that_others_can_read_is_told_with_the_command(host: Host) -> None:
    host.put(1)
    host.file.chmod(0o644)
    assert f"chmod 600 {host.file}" in [check.fix for check in _checks(host, "queue file")]


def test_a_file_that_was_corrupt_is_told(host: Host) -> None:
    host.put(1)
    (host.directory / f"{host.file.name}.corrupt-20260131T120000").touch()
    assert any("was corrupt" in check.text for check in _checks(host, "queue file"))


def test_entries_of_another_key_are_told_with_the_command_that_sends_them(host: Host) -> None:
    host.put(2, key=OTHER_KEY)
    fixes = [check.fix for check in _checks(host, "queue file")]
    assert f"readme-metrics flush --file {host.file_of(OTHER_KEY)}" in fixes


def test_a_hold_for_a_wrong_key_fails(host: Host) -> None:
    host.put(2)
    host.hold("refused", "401 Unauthorized: check README_API_KEY")
    real = examine(_place(host), mounts=lambda: DISK, ask=lambda *_: Answer(405), now=time.time)
    assert [FAIL] == [check.level for check in real if "401 Unauthorized" in check.text]


# -- the rest of the host, and the server


def test_a_key_that_nobody_said_is_told(host: Host) -> None:
    assert [WARN] == _levels(_checks(host, "key", key=None))
    assert [OK] == _levels(_checks(host, "key"))


def test_no_check_shows_the_key(host: Host) -> None:
    assert KEY not in host.run("doctor").out


@pytest.mark.parametrize(("version", "told"), [((3, 40, 1), True), ((3, 51, 3), False)])
def test_an_old_sqlite_is_explained_and_well(version: tuple[int, ...], *, told: bool) -> None:
    check = sqlite(version)
    assert (OK, told) == (check.level, "WAL reset bug" in check.text)


@pytest.mark.parametrize(
    ("found", "level", "words"),
    [
        (Answer(None, error="Connection refused"), WARN, "cannot be reached: Connection refused"),
        (Answer(401), FAIL, "refuses the key (401)"),
        (Answer(403), FAIL, "refuses the key (403)"),
        (Answer(302), FAIL, "answers like a web site"),
        (Answer(404, b"<!doctype html><html>"), FAIL, "answers like a web site"),
        (Answer(200, b"<html>"), FAIL, "answers like a web site"),
        (Answer(404, b"{}"), OK, "only a first batch tells whether it takes the key"),
        (Answer(405), OK, "only a first batch tells whether it takes the key"),
        (Answer(503), WARN, "is in trouble (503)"),
    ],
)
def test_what_the_server_answers_is_judged(host: Host, found: Answer, level: str, words: str) -> None:
    check = server(_place(host), found, 0.0, NOW)
    assert level == check.level
    assert words in check.text


def test_a_batch_that_was_taken_says_more_than_any_probe(host: Host) -> None:
    host.put(1)
    assert 0 == host.run("flush").status
    assert [OK] == _levels(_checks(host, "server"))
    assert "took a batch under this key" in _checks(host, "server")[0].text


def test_the_probe_leaves_nothing_at_the_server_and_shows_the_key(server: MetricsServer) -> None:
    server.behave(answer(405))
    assert 405 == reach(server.url, KEY).status
    (post,) = server.posts
    assert ("GET", "/v1/request", b"") == (post.method, post.target, post.body)
    assert post.headers["authorization"].startswith("Basic ")


def test_the_probe_does_not_follow_a_redirect(server: MetricsServer) -> None:
    server.behave(answer(302, {"Location": f"{server.url}/login"}))
    assert 302 == reach(server.url, KEY).status
    assert 1 == len(server.posts)


@pytest.mark.parametrize("behaviour", [hang_after_reading, drip_head(0.05)])
def test_the_probe_ends_in_time(server: MetricsServer, behaviour: Behaviour) -> None:
    server.behave(behaviour)
    began = time.monotonic()
    reach(server.url, KEY, total_s=2.0)
    assert time.monotonic() - began < 2.5


def test_a_server_that_is_away_is_told_in_the_systems_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert Answer(None, error="Connection refused") == reach(f"http://127.0.0.1:{port}", KEY)


# -- the command


def test_doctor_exits_with_1_where_something_fails_and_shows_each_fix(host: Host, server: MetricsServer) -> None:
    server.behave(answer(401))
    ran = host.run("doctor")
    assert 1 == ran.status
    assert f"Directory {host.directory}\n" in ran.out
    assert "fail  server" in ran.out
    assert "fix: check README_API_KEY (the api_key option)" in ran.out


def test_doctor_as_json_has_the_shape_that_help_tells(host: Host) -> None:
    ran = host.run("doctor", "--json")
    told = json.loads(ran.out)
    help_text = host.run("doctor", "--help").out
    assert [] == [name for name in [*told, *told["checks"][0]] if name not in help_text]
    assert {OK, WARN, FAIL} >= {check["level"] for check in told["checks"]}


def test_every_line_fits_80_columns(host: Host) -> None:
    host.put(2, key=OTHER_KEY)
    long = [line for line in host.run("doctor").out.splitlines() if len(line) > 80]
    assert [] == [line for line in long if str(host.directory) not in line]
