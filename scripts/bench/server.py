"""A stand-in for ReadMe's server that costs little: a process of its own, standard library only.

``well`` answers at once, ``slow`` after 100 ms, ``hanging`` reads and never answers, ``refusing`` listens to nobody.
It decodes nothing and counts the entries it took.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOW_S: Final = 0.1
_OK: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"


class Server:
    """What the process does, a thread for each connection."""

    def __init__(self, mode: str) -> None:
        self._mode = mode
        self._count = 0
        self._counting = threading.Lock()

    def serve(self, listener: socket.socket) -> None:
        """Answer until the process is ended."""
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as reading, contextlib.suppress(OSError):
            while request := reading.readline():
                connection.sendall(self._answer(request, reading.read(_length_of_body(reading))))

    def _answer(self, request: bytes, body: bytes) -> bytes:
        if request.startswith(b"GET "):
            told = b"%d" % self._count
            return _OK % (len(told), told)
        if self._mode == "hanging":
            time.sleep(3600)
        if self._mode == "slow":
            time.sleep(SLOW_S)
        with self._counting:
            self._count += body.count(b'"_id":')
        return _OK % (2, b"{}")


def _length_of_body(reading: BinaryIO) -> int:
    length = 0
    while (line := reading.readline()) not in (b"\r\n", b""):
        if line.lower().startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    return length


class RunningServer:
    """The process, seen from outside."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def count(self) -> int:
        """How many entries it took."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request("GET", "/count")
            return int(connection.getresponse().read())


@contextlib.contextmanager
def running(mode: str = "well", port: int = 0) -> Iterator[RunningServer]:
    """Run it in a process of its own until the ``with`` block ends."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        port = listener.getsockname()[1]
        if mode == "refusing":
            listener.close()
            yield RunningServer(port)
            return
        listener.set_inheritable(True)
        command = [sys.executable, __file__, mode, str(listener.fileno())]
        process = subprocess.Popen(command, pass_fds=[listener.fileno()])
    try:
        yield RunningServer(port)
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    Server(sys.argv[1]).serve(socket.socket(fileno=int(sys.argv[2])))
