#!/usr/bin/env bash
# openapi-python-client: of an operation with a required body of two kinds comes a module that cannot be imported.
#
# Guess:  JSON and multipart on one path become a function that takes either; the generator says nothing, so it works.
# Seen:   no warning, and importing the module is a NameError: the body is typed `A | B | Unset`, though it is required,
#         and `Unset` is imported only where something else of the operation may be left out. With an optional header
#         beside the body the module works.
# With:   openapi-python-client 0.29.1, Python 3.11 (30 November 2026)
# Ours:   serving/document.py names the optional X-Request-ID with each operation; tests/serving/test_document.py.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet "openapi-python-client==0.29.1"
cat >make.py <<'PY'
import json

text = {"title": "Text", "type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}
file = {"type": "string", "format": "binary"}
form = {"title": "Form", "type": "object", "required": ["audio"], "properties": {"audio": file}}
content = {"application/json": {"schema": text}, "multipart/form-data": {"schema": form}}
plain = {"requestBody": {"required": True, "content": content}, "responses": {"200": {"description": "found"}}}
header = {"name": "X-Request-ID", "in": "header", "required": False, "schema": {"type": "string"}}
for name, more in (("plain", {}), ("header", {"parameters": [header]})):
    operation = plain | {"operationId": "search"} | more
    document = {"openapi": "3.1.0", "info": {"title": name, "version": "1"}, "paths": {"/search": {"post": operation}}}
    json.dump(document, open(f"{name}.json", "w"))
PY
python3 make.py
imports() { # whether the made module can be imported
  PATH="$PWD/venv/bin:$PATH" venv/bin/openapi-python-client generate --path "$1.json" --fail-on-warning >/dev/null
  if (cd "$1-client" && ../venv/bin/python -c "import $1_client.api.default.search" 2>../said); then echo imported
  else tail -1 said; fi
}
plain=$(imports plain)
header=$(imports header)
echo "the body alone:            $plain"
echo "an optional header beside: $header"
[[ "$plain" == NameError* && "$header" == imported ]]
