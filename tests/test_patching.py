"""Patched too late, a process of gevent stores and sends nothing, holds up no request, and says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.queues import finished, python, rows

if TYPE_CHECKING:
    from pathlib import Path

CODE = """
import logging, sys, time, warnings
from readme_metrics import MetricsApiConfig
from readme_metrics.pipeline import pipeline_for
logging.basicConfig(stream=sys.stdout, format="%(levelname)s")
one = pipeline_for(MetricsApiConfig("a-key", lambda _: None, {options}queue_path=sys.argv[1]))
one.serve(lambda: True)
warnings.simplefilter("ignore")
from gevent import monkey; monkey.patch_all()
import gevent
longest = 0.0
def tick():
    global longest
    while True:
        began = time.monotonic()
        gevent.sleep(0.01)
        longest = max(longest, time.monotonic() - began)
ticker = gevent.spawn(tick)
for _ in range(3):
    one.put(b'{{"_id":"1"}}')
    time.sleep(0.6)
print(one.flush(1), longest < 0.5, flush=True)
"""


@pytest.mark.parametrize("options", ["", "background_worker_mode=False, ", "auto_flush=False, "])
def test_a_late_patch_is_one_error_and_what_comes_is_stored(tmp_path: Path, options: str) -> None:
    code = CODE.format(options=options)
    assert finished(python(code, tmp_path)).split() == ["ERROR", "3", "True"]
    assert len(rows(next(tmp_path.glob("*.sqlite")))) == 3
