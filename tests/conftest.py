"""Shared by all tests: nothing is downloaded, torch stays off the machine's other core, flows share one process."""

import os

import pytest
import torch
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from flows.settings import read_settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
read_settings()  # quiet defaults, before Ray, Prefect and MLflow are imported
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long the soak of ``tests/load`` lasts."""
    parser.addoption("--minutes", type=float, default=5.0, help="of the soak (-m load)")


class _ByRoom(LoadScopeScheduling):
    """One process of `pytest -n 2` runs all flows, since their first run takes minutes and most tests look at what it
    left; of the others each file as a whole, since its fixtures are its own. (xdist's own groups do not work with
    pytest 9.2: they rename tests by a field that it no longer has.)
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "tests/flows" if file.startswith("tests/flows/") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return _ByRoom(config, log)
