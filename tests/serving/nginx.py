"""A real nginx in front of an endpoint: its own configuration, logs and temporary files in a folder of the test's."""

import re
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

from serving.ports import free_port

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
MANUAL = {  # as nginx's own pages show a proxy: this and no other line
    "/": "location / {{ proxy_pass {url}; }}",
    "/music/": "location /music/ {{ proxy_pass {url}/; }}",
}
_CONF = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        {locations}
    }}
}}
"""


def documented(path):
    """The block of docs/serving.md as it stands there, or as it says to change it for the root of a site."""
    text = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    block = re.search(r"^    location /music/ \{\n.*?^    \}\n", text, re.MULTILINE | re.DOTALL)[0]
    if path == "/":
        block = re.sub(r"^.*X-Forwarded-Prefix.*\n", "", block.replace("/music/ {", "/ {"), flags=re.MULTILINE)
    return block.replace("{", "{{").replace("}", "}}").replace("http://127.0.0.1:8000", "{url}")


@contextmanager
def run_nginx(folder, url, *locations):
    """Its address, while it runs before the endpoint at ``url``."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    lines = "\n".join(location.format(url=url) for location in locations)
    conf = folder / "nginx.conf"
    conf.write_text(_CONF.format(folder=folder, port=port, locations=lines))
    process = subprocess.Popen([NGINX, "-c", conf, "-p", folder, "-e", folder / "error.log"], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while not _listens(port):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "error.log").read_text()
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def _listens(port):
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0
