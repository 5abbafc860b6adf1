"""Callers that hang up at all moments, send half a body or read slowly, in a process of their own; or polite ones.

Run as ``python rude_callers.py PORT NUMBER SEED A_SECOND rude|polite``. They come at a steady pace, so that both kinds
ask as much of the server.
"""

import json
import random
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

SEARCH = json.dumps({"text": "calm piano"}).encode()
KINDS = ("half", "gone", "page", "slow")


def head(port, path="/v1/search", *, length=None, method="POST"):
    """The head of a request, as bytes."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Content-Type: application/json"]
    return "\r\n".join([*lines, *([f"Content-Length: {length}"] if length is not None else []), "", ""]).encode()


def call(port, kind, dice):
    """One rude caller."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as caller:
        if kind == "half":
            caller.sendall(head(port, length=len(SEARCH)) + SEARCH[: dice.randrange(len(SEARCH))])
            time.sleep(dice.random() * 0.05)
        elif kind == "gone":
            caller.sendall(head(port, length=len(SEARCH)) + SEARCH)
            time.sleep(dice.random() * 0.02)
        elif kind == "page":
            caller.sendall(head(port, "/", method="GET"))
            time.sleep(dice.random() * 0.005)
        else:  # a slow reader, of something long
            caller.sendall(head(port, "/openapi.json", method="GET"))
            for _ in range(3):
                if not caller.recv(512):
                    break
                time.sleep(0.01)


def ask(port, kind):
    """The same request by one who sends it whole and reads the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as caller:
        if kind in ("half", "gone"):
            sent = head(port, length=len(SEARCH)) + SEARCH
        else:
            sent = head(port, "/" if kind == "page" else "/openapi.json", method="GET")
        caller.sendall(sent.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        while caller.recv(65_536):
            pass


def main(port, number, seed, a_second, manners):
    """Have ``number`` callers come, ``a_second`` of them each second."""
    dice, started = random.Random(seed), time.monotonic()
    kinds = [dice.choice(KINDS) for _ in range(number)]

    def one(place):
        time.sleep(max(0.0, started + place / a_second - time.monotonic()))
        if manners == "rude":
            call(port, kinds[place], random.Random(seed + place))
        else:
            ask(port, kinds[place])

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(number)))


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:5]), sys.argv[5])
