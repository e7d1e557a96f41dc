"""The demo's story: requests, a server that goes away, a kill -9, a restart, a drain, and the count of the lost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Final, NoReturn

from demo_api import PASSWORD, Api, Clients, DemoFailed
from demo_result import Result
from demo_server import StandIn

from readme_metrics.config import MIB, queue_file_name
from readme_metrics.queue import open_queue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from readme_metrics.queue.contract import Books

API_KEY: Final = "rdme_demo"
THIRD: Final = 100  # requests before the server goes, requests before the API is killed, requests after


def main() -> int:
    """Tell the story; 0 if nothing was lost."""
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)
    began_at = time.monotonic()
    try:
        with ExitStack() as stack:
            result = _story(stack)
    except DemoFailed as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; everything is put away.", file=sys.stderr)
        return 130
    print(result.told(time.monotonic() - began_at))
    return 0 if result.well else 1


def _story(stack: ExitStack) -> Result:
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="readme-metrics-demo-")))
    queue_directory = directory / "queue"
    server = StandIn()
    stack.callback(server.turn_off)
    server.turn_on()
    _set_environment(server.url, queue_directory)
    api = Api(_free_port(), directory / "api.log")
    clients = Clients(api.url)
    stack.callback(clients.end)
    stack.callback(api.end)
    stack.callback(signal.signal, signal.SIGINT, signal.SIG_IGN)  # the first to run: a second Ctrl-C disturbs nothing

    say = _storyteller()
    say(f"a stand-in for ReadMe's server listens on {server.url}, with a page that shows what arrives")
    api.start()
    say(f"a Flask API under gunicorn, two workers, listens on {api.url}")

    asked = clients.send(THIRD)
    _wait(asked, api)
    server.turn_off()
    say(f"{THIRD} requests are through, {len(server.wires())} entries arrived; now the server is off")

    asked += clients.send(THIRD)
    _wait(asked[: THIRD + THIRD * 4 // 5], api)
    pids = api.kill()
    clients.stand_still()
    waiting = _books(queue_directory).waiting
    say(f"kill -9 of the whole API in the middle of its work: {', '.join(map(str, pids))}")
    say(f"nothing of ours is running; {waiting} entries wait on the disk")

    api.start()
    clients.go_on()
    asked += clients.send(THIRD)
    _wait(asked, api)
    say(f"the API is back, the server still off; the rest is through, {_books(queue_directory).waiting} entries wait")
    leaks = _files_with_password(queue_directory)

    server.turn_on()
    say("the server is on again; python -m readme_metrics.flush --force says:")
    print(indent(_flush(), " " * 11))
    api.stop()
    say("the API has been asked to leave, and has left")

    return Result(
        sent=len(asked),
        answered=[entry_id for future in asked if (entry_id := future.result())],
        books=_books(queue_directory),
        times_received=server.times_received(),
        leaks=leaks + sum(PASSWORD.encode() in wire for wire in server.wires()),
        sample=server.example("/login"),
    )


def _books(queue_directory: Path) -> Books:
    """Count the rows, beside the API if it runs."""
    file = queue_directory / queue_file_name(os.environ["README_METRICS_SERVER"], API_KEY)
    with closing(open_queue(file, max_bytes=512 * MIB)) as entries:
        return entries.report().books


def _flush() -> str:
    command = [sys.executable, "-m", "readme_metrics.flush", "--force"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise DemoFailed(f"flush ended with {done.returncode}; its words:\n\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def _files_with_password(directory: Path) -> int:
    return sum(PASSWORD.encode() in file.read_bytes() for file in directory.rglob("*") if file.is_file())


def _set_environment(server_url: str, queue_directory: Path) -> None:
    """What the API and the command read; the user's own settings must not reach the demo."""
    os.environ |= {
        "README_API_KEY": API_KEY,
        "README_METRICS_SERVER": server_url,
        "README_METRICS_QUEUE_PATH": str(queue_directory),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NO_PROXY": "127.0.0.1",
        "GUNICORN_CMD_ARGS": "",
    }


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait(asked: Sequence[Future[str | None]], api: Api) -> None:
    try:
        for future in asked:
            future.result(timeout=60)
    except (TimeoutError, LookupError, OSError) as error:
        raise api.failure(f"A request failed with {error!r}") from error


def _storyteller() -> Callable[[str], None]:
    began_at = time.monotonic()
    return lambda words: print(f"{time.monotonic() - began_at:7.1f} s  {words}", flush=True)


def _leave(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
