"""A wire that breaks: a TCP proxy that hands requests on whole, and of the answers as much as it is told to."""

import socket
import socketserver
import threading
from contextlib import contextmanager

BEFORE = "before"
"""Hangs up once the request has come, which nobody behind it sees."""


class Wire:
    """What the proxy does with the next requests, and how many it was given."""

    def __init__(self, port):
        self.port, self.plan, self.seen = port, [], 0

    def exchange(self, request):
        """What comes back for one request: the whole answer, or what the plan leaves of it."""
        self.seen += 1
        act = self.plan.pop(0) if self.plan else None
        if act == BEFORE:
            return b""
        head, _, body = request.partition(b"\r\n\r\n")
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as behind:
            behind.sendall(head + b"\r\nConnection: close\r\n\r\n" + body)
            answer = b"".join(iter(lambda: behind.recv(65_536), b""))
        if act is None:
            return answer
        start = answer.index(b"\r\n\r\n") + 4
        return {"head": answer[: start // 2], "body": answer[: (start + len(answer)) // 2], "nothing": b""}[act]


def _read_request(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65_536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
    while len(body) < int(lengths[0] if lengths else 0):
        body += connection.recv(65_536)
    return head + b"\r\n\r\n" + body


@contextmanager
def cut_wire(url):
    """The address of the proxy before an endpoint, and its ``Wire``."""
    wire = Wire(int(url.rpartition(":")[2]))

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            request = _read_request(self.request)
            if request is not None:
                self.request.sendall(wire.exchange(request))

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", wire
        finally:
            server.shutdown()
