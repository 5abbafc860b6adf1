#!/usr/bin/env bash
# schemathesis: a relative server in an OpenAPI document is joined to the host, not to the document's address.
#
# Guess:  `servers: [{"url": "."}]` in http://host/music/openapi.json means http://host/music/, as OpenAPI says
#         ("relative to the location where the document containing the Server Object is being served").
# Seen:   requests go to http://host/livez, outside of /music. With `{"url": "/music"}` they go to /music/livez.
# With:   schemathesis 4.32.5, Python 3.11 (30 November 2026)
# Ours:   serving/document.py writes the prefix out where the proxy tells it.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet "schemathesis==4.32.5"
cat >server.py <<'PY'
import http.server, json, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = "." if self.path.startswith("/dot/") else "/path"
        document = {"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "servers": [{"url": server}]}
        document["paths"] = {"/livez": {"get": {"responses": {"200": {"description": "alive"}}}}}
        body = json.dumps(document if self.path.endswith("/openapi.json") else {}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        with open("asked", "a") as file:
            file.write(self.path + "\n")

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
open("port", "w").write(str(server.server_port))
server.serve_forever()
PY
python3 server.py &
server=$!
until [ -s port ]; do sleep 0.1; done
asked_of() { # the addresses of the operation that it asks, of the document under a path
  : >asked
  venv/bin/schemathesis run "http://127.0.0.1:$(cat port)/$1/openapi.json" --max-examples 3 >/dev/null
  grep livez asked | sort -u | tr '\n' ' '
}
dot=$(asked_of dot)
path=$(asked_of path)
echo "the document is in /dot/,  its server is \".\":     asked were $dot"
echo "the document is in /path/, its server is \"/path\": asked were $path"
[[ "$dot" != *"/dot/livez"* && "$path" == *"/path/livez"* ]]
