"""Shared by all tests: nothing is downloaded, torch stays off the machine's other core, flows share one process."""

import os
import re
from functools import cache
from pathlib import Path

import pytest
import torch
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from flows.runtime.settings import read_settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
for shape in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(shape, None)  # the terminal of whoever runs the tests: what they print is a pipe's
read_settings()  # quiet defaults, before Ray, Prefect and MLflow are imported
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long the soak of ``tests/load`` lasts."""
    parser.addoption("--minutes", type=float, default=5.0, help="of the soak (-m load)")


class _ByRoom(LoadScopeScheduling):
    """One process of `pytest -n 2` runs what looks at the flow's first run, which takes minutes; of the others each
    file as a whole, since its fixtures are its own. (xdist's own groups do not work with pytest 9.2: they rename tests
    by a field that it no longer has.)
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "the first run" if _looks_at_the_first_run(self.config.rootpath / file) else file


@cache
def _looks_at_the_first_run(file: Path) -> bool:
    return re.search(r"^def \w+\([^)]*\bfirst\b", file.read_text(encoding="utf-8"), re.MULTILINE) is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those of the first run come first, being the longest, so that two processes end at about the same time."""
    items.sort(key=lambda item: not _looks_at_the_first_run(item.path))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    config.option.loadscopereorder = False  # by the number of their tests, which says nothing of their time
    return _ByRoom(config, log)
