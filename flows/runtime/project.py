"""Where MuLan's own files lie: in the checkout, or in what a wheel carries of it (setup.py)."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path

PACKAGES = Path(__file__).resolve().parents[2]
"""The folder of mulan_core, serving and flows: the checkout, or site-packages."""
IS_CHECKOUT = (PACKAGES / "dvc.yaml").is_file()
PROJECT = PACKAGES if IS_CHECKOUT else PACKAGES / "flows" / "project_files"
"""The folder of dvc.yaml, params.yaml, constraints.txt and configs/."""
VERSION = version("mulan")


def code_version() -> str:
    """The checkout's commit, with ``-dirty`` where tracked files differ; the version of an installed package."""
    if not IS_CHECKOUT:
        return VERSION
    commands = (["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain", "--untracked-files=no"])
    try:
        commit, status = (
            subprocess.run(c, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.strip() for c in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return VERSION  # a copy without its history
    return f"{commit}-dirty" if status else commit
