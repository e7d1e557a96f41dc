"""Forks in any state: real processes, because the danger is in the kernel's locks and descriptors."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from readme_metrics.queue.durable import SqliteQueue
from tests.queues import MIB, drained, end, finished, python, rows, sqlite_queue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from readme_metrics.queue.sqlite import QueueFile

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

PRELUDE = """
import ctypes, gc, json, os, sys, threading
from pathlib import Path
from readme_metrics.errors import QueueUnavailable
from readme_metrics.queue.durable import SqliteQueue

path = Path(sys.argv[1])
queue = SqliteQueue(path, max_bytes=64 << 20)

def put(name, count=1):
    for number in range(count):
        queue.put(f"{name} {number}".encode())

def in_child(do, fork=os.fork):
    "Run it in a child that leaves as a program does, and wait for it."
    child = fork()
    if child == 0:
        do()
        sys.exit()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, status

def c_fork():
    "As C code forks: none of Python's hooks runs."
    return ctypes.CDLL(None).fork()

def refused(do):
    try:
        do()
    except QueueUnavailable as error:
        assert "forked by C code while the queue's file was open" in str(error)
        return True
    return False
"""
MASTER_AND_WORKERS = """
import time
put("master", 10)
assert queue.elect()
leave = False

def keep_writing():
    number = 0
    while not leave:
        queue.put(f"thread {number}".encode())
        number += 1

threading.Thread(target=keep_writing, daemon=True).start()

def work(name):
    put(f"{name} first")
    with open(path.with_name(f"{name}.out"), "w", buffering=1) as out:
        out.write("ready\\n")
        with open(path.with_name(f"{name}.in")) as commands:
            for command in commands:
                put(f"{name} {command.strip()}", 50)
                out.write("done\\n")
    queue.close()

for name in ("one", "two"):
    if os.fork() == 0:
        leave = True
        work(name)
        sys.exit()
time.sleep(60)
"""


def run(path: Path, code: str, *, quiet: bool = True) -> Any:
    """What a program that uses the queue prints, as JSON; it complains of nothing, unless it may."""
    out = finished(python(PRELUDE + code, path), quiet=quiet)
    return json.loads(out) if out else None


def intact(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as connection:
        return [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()


def test_a_fork_inside_a_write_then_the_master_killed_then_a_worker_leaving_costs_its_sibling_nothing(
    path: Path,
) -> None:
    for name in ("one", "two"):
        os.mkfifo(path.with_name(f"{name}.out"))
        os.mkfifo(path.with_name(f"{name}.in"))
    with python(PRELUDE + MASTER_AND_WORKERS, path) as master:
        try:
            with (
                path.with_name("one.out").open() as out_one,
                path.with_name("one.in").open("w", buffering=1) as to_one,
                path.with_name("two.out").open() as out_two,
                path.with_name("two.in").open("w", buffering=1) as to_two,
            ):
                assert ["ready\n", "ready\n"] == [out_one.readline(), out_two.readline()]
                master.kill()
                master.wait()
                queue = sqlite_queue(path)
                assert queue.elect()
                queue.close()
                to_one.close()
                assert "" == out_one.readline()
                to_two.write("later\n")
                assert "done\n" == out_two.readline()
                to_two.close()
                assert "" == out_two.readline()
        finally:
            end(master)
    found = rows(path)
    assert 50 == len([each for each in found if each.startswith(b"two later")])
    assert {b"one first 0", b"two first 0", b"master 9"} <= set(found)
    assert len(found) == len(set(found))
    threads = [each for each in found if each.startswith(b"thread")]
    assert [b"thread %d" % number for number in range(len(threads))] == threads
    assert intact(path)
    queue = sqlite_queue(path)
    assert queue.report().books.balanced
    queue.close()


@pytest.mark.parametrize("forks", [1, 3, 10])
def test_forks_just_before_each_try_cost_neither_a_put_nor_an_answer(path: Path, forks: int) -> None:
    queue = sqlite_queue(path)
    queue.put(b"first")
    left = forks

    def then_forks(find: Callable[..., QueueFile | None]) -> Callable[..., QueueFile | None]:
        def found(*args: Any) -> QueueFile | None:
            nonlocal left
            file = find(*args)
            if left and file is not None:
                left -= 1
                queue._close_file(file)  # as a fork in another thread does
            return file

        return found

    queue._ready = then_forks(queue._ready)  # type: ignore[method-assign]  # to fork in between
    queue.put(b"second")
    assert (0, 0) == (left, queue.kept_in_memory)
    left = forks
    queue._open = then_forks(queue._open)  # type: ignore[method-assign,assignment]  # likewise
    assert queue.hold() is None
    assert 0 == left
    queue.close()
    assert [b"first", b"second"] == rows(path)


def test_who_waits_for_a_lock_during_a_fork_sees_that_the_file_was_closed(path: Path) -> None:
    queue = sqlite_queue(path)
    queue.put(b"first")
    file = queue._file
    assert file is not None
    seen: list[object] = []
    lock = file.tran_lock

    class Told:
        acquire = lock.acquire

        @staticmethod
        def release() -> None:
            seen.append(queue._file)
            lock.release()

    file.tran_lock = Told()  # type: ignore[assignment]  # to look at the moment when it is let go of
    queue.before_fork()
    queue.after_fork_in_parent()
    assert [None] == seen
    queue.close()


def test_forks_while_threads_put_claim_and_close_lose_nothing_and_hang_nowhere(path: Path) -> None:
    run(
        path,
        """
stop = threading.Event()

def busy(do):
    def repeat():
        while not stop.is_set():
            do()
    thread = threading.Thread(target=repeat)
    thread.start()
    return thread

threads = [threading.Thread(target=put, args=(f"thread{each}", 1000)) for each in range(2)]
for thread in threads:
    thread.start()
others = [busy(do) for do in (queue.elect, queue.report, queue.tend, queue.hold, queue.resign)]
for each in range(20):
    in_child(lambda: put(f"child{each}", 5))
for thread in threads:
    thread.join()
stop.set()
for thread in others:
    thread.join()
queue.close()
""",
    )
    expected = [b"thread%d %d" % (each, number) for each in range(2) for number in range(1000)]
    expected += [b"child%d %d" % (each, number) for each in range(20) for number in range(5)]
    assert sorted(expected) == sorted(rows(path))
    assert intact(path)


def test_threads_that_fork_at_once_do_not_wait_for_each_other_for_ever(path: Path) -> None:
    run(
        path,
        """
second = SqliteQueue(path.with_name("second.sqlite"), max_bytes=64 << 20)
def fork_and_put():
    for _ in range(10):
        put("parent")
        second.put(b"x")
        in_child(lambda: os._exit(0))
threads = [threading.Thread(target=fork_and_put) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
queue.close()
second.close()
""",
    )
    assert 20 == len(rows(path))
    assert 20 == len(rows(path.with_name("second.sqlite")))


def test_a_claim_outlives_a_fork_in_the_parent_and_is_nothing_in_the_child(path: Path) -> None:
    result = run(
        path,
        """
put("entry", 4)
assert queue.elect()
batch = queue.claim(2, 1000)

def child():
    assert not queue.elect()
    queue.ack(batch)
    queue.release(batch)
    queue.bury(batch, status=400, reason="400", answer="")
    assert queue.report().books.waiting == 4
    assert queue.unclaimed(10).count == 4
    queue.close()

in_child(child)
assert queue.unclaimed(10).count == 2
queue.ack(batch)
print(json.dumps([queue.report().books.delivered, [each.decode() for each in queue.claim(9, 999).entries]]))
queue.close()
""",
    )
    assert [2, ["entry 2", "entry 3"]] == result


def test_what_waits_in_memory_is_the_parents_alone(path: Path) -> None:
    run(
        path,
        """
import sqlite3
put("before")
stranger = sqlite3.connect(path, isolation_level=None)
stranger.execute("BEGIN IMMEDIATE")
put("locked", 3)
stranger.close()
assert queue.kept_in_memory == 3

def child():
    assert queue.kept_in_memory == 0
    put("child")
    queue.close()

in_child(child)
queue.close()
""",
        quiet=False,
    )
    assert sorted([b"before 0", b"child 0", b"locked 0", b"locked 1", b"locked 2"]) == sorted(rows(path))


def test_refusals_are_counted_by_the_process_that_met_them(path: Path) -> None:
    run(
        path,
        """
put("before")
queue._not_accepted["no space"] = 2
in_child(lambda: (put("child"), queue.close()))
queue.close()
""",
    )
    queue = sqlite_queue(path)
    assert {"no space": 2} == queue.report().books.not_accepted
    queue.close()


@pytest.mark.parametrize(
    "child",
    [
        pytest.param("sys.exit()", id="leaves"),
        pytest.param("queue.close(); sys.exit()", id="closes"),
        pytest.param("del queue; gc.collect(); sys.exit()", id="collects"),
        pytest.param("assert refused(lambda: queue.put(b'x')) and refused(lambda: queue.put(b'y'))", id="puts"),
        pytest.param("assert refused(queue.elect) and refused(queue.tend) and refused(queue.hold)", id="drains"),
        pytest.param("in_child(lambda: refused(lambda: queue.put(b'x')) or os._exit(9))", id="forks"),
        pytest.param("in_child(lambda: refused(lambda: queue.put(b'x')) or os._exit(9), c_fork)", id="C-forks"),
    ],
)
def test_a_child_of_c_code_never_opens_a_file_that_was_open_and_never_harms_it(path: Path, child: str) -> None:
    result = run(
        path,
        f"""
put("before", 3)
assert queue.elect()
log = path.with_name(path.name + "-wal")
child = c_fork()
if child == 0:
    {child}
    sys.exit()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert log.exists()
put("after", 3)
assert queue.elect()
print(json.dumps(queue.report().drainer.pid == os.getpid()))
os._exit(0)
""",
    )
    assert result is True
    queue = sqlite_queue(path)
    assert [b"before %d" % number for number in range(3)] + [b"after %d" % number for number in range(3)] == drained(
        queue
    )
    queue.close()


def test_a_child_of_c_code_opens_a_file_that_was_not_open(path: Path) -> None:
    run(path, "put('parent')\nqueue.close()\nin_child(lambda: (put('child'), queue.close()), c_fork)\nput('parent')\n")
    assert [b"parent 0", b"child 0", b"parent 0"] == rows(path)


def test_a_child_of_c_code_that_forks_while_a_thread_opens_the_file_waits_for_nobody(path: Path) -> None:
    run(
        path,
        """
opening, go_on = threading.Event(), threading.Event()

def hold_the_lock():
    with queue._opening, queue._office:
        opening.set()
        go_on.wait()

thread = threading.Thread(target=hold_the_lock)
thread.start()
opening.wait()

def child():
    assert refused(lambda: put("child"))
    queue.close()

child_pid = c_fork()
if child_pid == 0:
    child()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child_pid, 0)[1]) == 0
go_on.set()
thread.join()
""",
    )


def test_the_drainer_lock_dies_with_its_holder_though_a_child_that_c_code_forked_has_put_since(path: Path) -> None:
    holder = python(
        PRELUDE
        + """
put("before")
assert queue.elect()
if c_fork() == 0:
    refused(lambda: put("child"))
    os.write(1, b"put\\n")
    sys.stdin.readline()
    os._exit(0)
sys.stdin.readline()
""",
        path,
    )
    with holder:
        try:
            assert holder.stdout is not None
            assert "put\n" == holder.stdout.readline()
            holder.kill()
            holder.wait()
            queue = sqlite_queue(path)
            assert queue.elect()
            queue.close()
        finally:
            end(holder)


def test_one_process_that_has_a_file_open_by_two_paths_keeps_its_locks(path: Path) -> None:
    """To close any descriptor of a database drops them all: the next process would take itself for the last one."""
    real = path.parent / "real"
    path.parent.joinpath("link").symlink_to(real)
    queues = [SqliteQueue(path.parent / name / path.name, max_bytes=64 * MIB) for name in ("real", "link")]
    for queue in queues:
        queue.put(b"first")
    visitor = python(
        "import sqlite3, sys; file = sqlite3.connect(sys.argv[1]); file.execute('SELECT 1 FROM ledger').fetchall(); "
        "file.close()",
        real / path.name,
    )
    assert "" == finished(visitor)
    for queue in queues:
        queue.put(b"then")
    assert [b"first", b"first", b"then", b"then"] == rows(real / path.name)
    assert real.joinpath(f"{path.name}-wal").exists()
    for queue in queues:
        queue.close()
