"""Ids: uuid4s, and never the same one twice, whatever threads, forks and copied machines do."""

from __future__ import annotations

import copy
import os
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from readme_metrics.ids import AT_ONCE, Ids


def test_ids_are_uuid4s() -> None:
    ids = Ids()
    made = [ids.new() for _ in range(3 * AT_ONCE)]

    assert len(made) == len(set(made))
    assert {(4, uuid.RFC_4122)} == {(uuid.UUID(one).version, uuid.UUID(one).variant) for one in made}
    assert all(str(uuid.UUID(one)) == one for one in made)


def test_threads_that_share_them_make_different_ones() -> None:
    ids = Ids()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            made = [one for some in threads.map(lambda _: [ids.new() for _ in range(500)], range(16)) for one in some]
    finally:
        sys.setswitchinterval(interval)

    assert 8000 == len(set(made))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_fetches_randomness_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 0)
    ids = Ids()
    ids.new()
    reading, writing = os.pipe()

    child = os.fork()
    if child == 0:  # pragma: no cover - the child's lines are not counted
        os.write(writing, " ".join(ids.new() for _ in range(AT_ONCE)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="ascii") as told:
        theirs = set(told.read().split())

    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert AT_ONCE == len(theirs)
    assert theirs.isdisjoint(ids.new() for _ in range(AT_ONCE - 1))


def test_two_copies_of_a_frozen_machine_make_different_ids() -> None:
    ids = Ids()
    ids.new()
    copied = copy.deepcopy(ids)

    assert {ids.new() for _ in range(10)}.isdisjoint(copied.new() for _ in range(10))
