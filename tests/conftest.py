"""Shared by all tests: nothing is downloaded, torch stays off the machine's other core."""

import os

import torch

from flows.settings import read_settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
read_settings()  # quiet defaults, before Ray, Prefect and MLflow are imported
torch.set_num_threads(1)
