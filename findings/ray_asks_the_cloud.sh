#!/usr/bin/env bash
# Ray: with its usage report off and no dashboard, it still asks three clouds' metadata addresses, through HTTP_PROXY.
#
# Guess:  RAY_USAGE_STATS_ENABLED=0 and include_dashboard=False: a Ray of one machine makes no HTTP request at all, and
#         what it says to itself goes by gRPC, which it keeps from proxies.
# Seen:   at each start the head asks http://169.254.169.254 (the ways of Azure and of AWS) and
#         http://metadata.google.internal. With HTTP_PROXY set the proxy gets all three, and answers for its own
#         machine, or writes to its log that somebody asks for credentials' addresses. NO_PROXY with both names keeps
#         them from it. The part of the dashboard that gathers the usage report is started without a dashboard too,
#         and looks for the cloud before it looks whether a report is wanted.
# With:   ray 2.60.0, Python 3.11 (30 November 2026)
# Ours:   serving/loopback.py adds both names to NO_PROXY.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet "ray[default]==2.60.0"
cat >start.py <<'PYTHON'
import os
import socket
import subprocess
import sys
import threading
import time

START = """
import time, ray
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
time.sleep(15)
ray.shutdown()
"""


def asked(no_proxy):
    """First lines of what a proxy is asked while a private Ray lives; it hangs up on everybody."""
    lines, proxy = [], socket.create_server(("127.0.0.1", 0))

    def refuse():
        while True:
            connection, _ = proxy.accept()
            lines.append(connection.recv(300).split(b"\r\n")[0].decode())
            connection.close()

    threading.Thread(target=refuse, daemon=True).start()
    env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    env |= {"RAY_USAGE_STATS_ENABLED": "0", "http_proxy": f"http://127.0.0.1:{proxy.getsockname()[1]}"}
    env["no_proxy"] = no_proxy
    subprocess.run([sys.executable, "-c", START], env=env, check=True, stderr=subprocess.DEVNULL)
    time.sleep(1)
    return sorted(set(lines))


here = "localhost,127.0.0.1,::1"
seen = asked(here)
print("asked of the proxy, loopback excepted:", *seen, sep="\n  ")
quiet = asked(f"{here},169.254.169.254,metadata.google.internal")
print("with the clouds' addresses excepted too:", *quiet or ["nothing"], sep="\n  ")
sys.exit(not (len(seen) == 3 and any("metadata.google.internal" in line for line in seen) and not quiet))
PYTHON
venv/bin/python start.py
