"""A load generator that costs little: threads with raw sockets, a connection for each request.

A program; prints the seconds that each answer took as JSON. Standard library only.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from typing import Final

CLIENTS: Final = 8
REQUEST: Final = (
    b"GET /users/4711?page=2&sort=name HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0\r\n"
    b"Accept: application/json, text/plain, */*\r\nAccept-Encoding: gzip, deflate, br\r\n"
    b"Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\nAuthorization: Bearer 0123456789abcdef0123456789abcdef\r\n"
    b"X-Request-Id: 5f0c1b4e-8f4c-4a3f-9a3e-2f6f4f7f9a10\r\n\r\n"
)


def ask(port: int) -> float:
    """Seconds until an answer was there, whole."""
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(REQUEST)
        answer = connection.recv(65536)
        while part := connection.recv(65536):
            answer += part
    if not answer.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(answer[:200])
    return time.perf_counter() - began


def load(port: int, seconds: float) -> list[float]:
    """All clients at once, each as fast as it is answered."""
    taken: list[float] = []
    ends = time.perf_counter() + seconds

    def run() -> None:
        while time.perf_counter() < ends:
            taken.append(ask(port))

    clients = [threading.Thread(target=run) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return taken


if __name__ == "__main__":
    print(json.dumps(load(int(sys.argv[1]), float(sys.argv[2]))))
