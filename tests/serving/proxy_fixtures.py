"""A proxy on loopback that counts who asks it and refuses everybody, and the variables that name one."""

import os
import socket
import threading

VARIABLES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "grpc_proxy")


class RefusingProxy:
    """Hangs up on whoever connects, and keeps what it said first."""

    def __init__(self):
        self.asked = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._refuse, daemon=True).start()

    def _refuse(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(2)
                try:
                    self.asked.append(connection.recv(200))
                except OSError as error:
                    self.asked.append(repr(error).encode())

    def environment(self, scheme="http"):
        """Every variable that may name a proxy, and no NO_PROXY."""
        return dict.fromkeys(VARIABLES, f"{scheme}://{self.address}")

    def close(self):
        self._socket.close()


def without_proxies(environment=os.environ):
    """An environment that names no proxy."""
    return {name: value for name, value in environment.items() if not name.lower().endswith("_proxy")}
