"""pyzmq with no protocol on top, DEALER to ROUTER between two processes: the limit of what links can reach.

`python peers/pyzmq_links.py BENCHMARK COUNT [curve]`. Blocking sockets, no event loop, nothing lost only by luck.
"""

from __future__ import annotations

import subprocess
import sys
import time

import zmq

CALL, CAST, QUERY = b"c", b"s", b"q"
CALLERS = 100


def secure(socket: zmq.Socket, *, server: bool, keys: list[bytes]) -> None:
    public, secret = keys
    socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
    if server:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
    else:
        socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
        socket.setsockopt(zmq.CURVE_SERVERKEY, public)


def serve(keys: list[bytes]) -> None:
    """Echoes calls, counts casts, answers a query when all before it has come, as order has it."""
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.SNDHWM, 0)
    if keys:
        secure(socket, server=True, keys=keys)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    print(port, flush=True)
    while True:
        client, message = socket.recv_multipart()
        if message[:1] != CAST:
            socket.send_multipart([client, message])


def casts(socket: zmq.Socket, size: int, count: int) -> None:
    message = CAST * size
    for _ in range(count):
        socket.send(message)
    socket.send(QUERY)
    socket.recv()


def calls(socket: zmq.Socket, callers: int, count: int) -> None:
    for n in range(callers):
        socket.send(CALL + b"%30d" % n)
    for n in range(count - callers):
        socket.recv()
        socket.send(CALL + b"%30d" % n)
    for _ in range(callers):
        socket.recv()


BENCHMARKS = {
    "calls_1_per_s": lambda socket, count: calls(socket, 1, count),
    "calls_100_per_s": lambda socket, count: calls(socket, CALLERS, count),
    "casts_100b_per_s": lambda socket, count: casts(socket, 100, count),
    "mib_per_s_1mib": lambda socket, count: casts(socket, 1024 * 1024, count),
}


def main() -> None:
    if sys.argv[1] == "serve":
        serve([text.encode() for text in sys.argv[2:]])
        return
    name, count, curve = sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["curve"]
    keys = list(zmq.curve_keypair()) if curve else []
    server = subprocess.Popen(
        [sys.executable, __file__, "serve", *(key.decode() for key in keys)], stdout=subprocess.PIPE, text=True
    )
    try:
        socket = zmq.Context().socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, 64 if "mib" in name else 10_000)
        if curve:
            secure(socket, server=False, keys=keys)
        socket.connect(f"tcp://127.0.0.1:{int(server.stdout.readline())}")
        calls(socket, 1, 10)
        started = time.perf_counter()
        BENCHMARKS[name](socket, count)
        print(count / (time.perf_counter() - started), flush=True)
    finally:
        server.kill()


main()
