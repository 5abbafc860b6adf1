"""openapi-python-client, a public generator of clients, in a folder of its own: its needs contradict the lock."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

VERSION = "0.29.1"


def generate(document, folder):
    """Write the client of a document to a folder, which it may not warn of; skips the test where it cannot be had.

    Returns:
        What it says, and an interpreter that can import the client's dependencies.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = cache / "mulan-tests" / f"openapi-python-client-{VERSION}"
    python, done = home / "bin" / "python", home / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        install = [python, "-m", "pip", "install", "--quiet", f"openapi-python-client=={VERSION}"]
        made = subprocess.run(install, capture_output=True, text=True)
        if made.returncode:
            pytest.skip(f"openapi-python-client cannot be installed here: {made.stderr.strip()[-300:]}")
        done.touch()
    command = [home / "bin" / "openapi-python-client", "generate", "--path", document, "--output-path", folder]
    path = f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"  # it formats what it wrote by ruff
    made = subprocess.run(
        [*command, "--fail-on-warning"], env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    return made, python
