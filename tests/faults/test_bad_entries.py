"""Bad entries: a server that refuses some, or refuses all; the guilty are set aside and nobody else pays for them."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest

from readme_metrics.drain import MOST_REJECTIONS, Ending
from tests.faults import oracle
from tests.faults.client import ask
from tests.faults.hours import ENTRIES, Hours
from tests.faults.processes import gunicorn, poll
from tests.metrics_server import answer, too_large_above

if TYPE_CHECKING:
    from tests.faults.bench import Bench
    from tests.metrics_server import Behaviour, Call

BATCH = 64
GUILTY = "/json?guilty=1"
REASON = b'{"message": "no such field"}'
MOST_POSTS = 1 + 2 * int(math.log2(BATCH))
"""To find one guilty entry: both halves at each level."""


def refuse_the_guilty(status: int) -> Behaviour:
    def behave(call: Call) -> None:
        call.read()
        if b"guilty=1" in call.post.body:
            call.answer(status, body=REASON)
        else:
            call.answer()

    return behave


@pytest.mark.parametrize("status", [400, 422])
def test_one_guilty_entry_is_buried_with_its_reason_and_the_others_go_once(bench: Bench, status: int) -> None:
    bench.server.behave(refuse_the_guilty(status))
    app = bench.app(gunicorn("--workers=1"), buffer_length=BATCH, flush_interval=60).start()
    clients = bench.clients(app)
    clients.send(BATCH // 2)
    guilty = ask(app.port, "GET", GUILTY)
    clients.send(BATCH - BATCH // 2 - 1)
    poll(lambda: bench.books().dead == 1, 20, lambda: f"a burial: {bench.report()}")
    bench.wait_until_empty()
    app.stop()

    [letter] = oracle.dead_letters(oracle.queue_file(bench.queue))
    assert guilty is not None
    assert guilty.entry_id == json.loads(letter.entry)["_id"]
    assert (status, REASON.decode()) == (letter.status, letter.answer)
    assert len(bench.server.posts) <= MOST_POSTS
    assert BATCH - 1 == len(bench.server.taken_ids)
    bench.judge(f"bad entries: {status} for one of {BATCH}")


def test_a_batch_that_is_too_large_goes_in_parts_and_a_lone_giant_is_buried(bench: Bench) -> None:
    bench.server.behave(too_large_above(40_000))
    app = bench.app(gunicorn("--workers=1"), buffer_length=BATCH, flush_interval=60).start()
    clients = bench.clients(app)
    clients.send(BATCH // 2)
    assert ask(app.port, "POST", "/orders", json.dumps({"giant": "x" * 50_000}).encode()) is not None
    clients.send(BATCH - BATCH // 2 - 1)
    poll(lambda: bench.books().dead == 1, 20, lambda: f"a burial: {bench.report()}")
    bench.wait_until_empty()
    app.stop()

    [letter] = oracle.dead_letters(oracle.queue_file(bench.queue))
    assert 413 == letter.status
    assert BATCH - 1 == len(bench.server.taken_ids)
    bench.judge("bad entries: 413 above a size")


def test_guilty_entries_under_load_cost_nobody_else_anything(bench: Bench) -> None:
    bench.server.behave(refuse_the_guilty(400))
    app = bench.app(gunicorn()).start()
    guilty = []
    with bench.clients(app) as clients:
        for _ in range(5):
            clients.wait_for(30)
            guilty.append(ask(app.port, "GET", GUILTY))
    bench.wait_until_empty()
    app.stop()

    path = oracle.queue_file(bench.queue)
    assert sorted(str(each and each.entry_id) for each in guilty) == sorted(oracle.dead_ids(path))
    bench.judge("bad entries: 400 for some, under load")


def test_a_server_that_refuses_everything_buries_ten_and_then_one_a_probe(hours: Hours) -> None:
    hours.server.behave(answer(400, body=REASON))
    assert Ending.HELD is hours.drain.run(everything=True)
    assert MOST_REJECTIONS == hours.queue.report().books.dead
    assert "rejected" == hours.hold().kind
    assert 300 == hours.hold().length_s

    for probe in range(1, 4):
        hours.now = hours.hold().until
        hours.restart()
        hours.drain.run(everything=True)
        assert MOST_REJECTIONS + probe == hours.queue.report().books.dead

    hours.now = hours.hold().until
    hours.server.behave(answer())
    assert Ending.DONE is hours.drain.run(everything=True)
    letters = [letter.id for letter in hours.queue.dead_letters()]
    assert len(letters) == hours.queue.requeue(letters)
    assert Ending.DONE is hours.drain.run(everything=True)
    assert ENTRIES == len(set(hours.server.taken_ids))
    assert hours.queue.report().books.balanced
