"""Shared by all tests: nothing is downloaded, torch stays off the machine's other core, flows share one process."""

import os

import pytest
import torch

from flows.settings import read_settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
read_settings()  # quiet defaults, before Ray, Prefect and MLflow are imported
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long the soak of ``tests/load`` lasts."""
    parser.addoption("--minutes", type=float, default=5.0, help="of the soak (-m load)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Name what one process of `pytest -n 2 --dist loadgroup` runs as a whole: all flows, since their first run takes
    minutes and most tests look at what it left; of the others each file, since its fixtures are its own.
    """
    for item in items:
        folder = item.path.parent.name
        item.add_marker(pytest.mark.xdist_group("flows" if folder == "flows" else f"{folder}/{item.path.stem}"))
