"""Shared by all tests: nothing is downloaded, torch stays off the machine's other core."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from flows.settings import read_settings

read_settings()  # quiet defaults, before Ray, Prefect and MLflow are imported

import torch

torch.set_num_threads(1)
