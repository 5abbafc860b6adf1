"""``mulan doctor``: looks at the machine and at every configured address, and says what to do.

A check is a function of the settings that yields findings. None depends on another; one that breaks is a finding too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from flows.doctor import addresses, machine
from flows.doctor.check import DoctorCheck, failure
from flows.runtime.settings import Settings
from mulan_core.errors import UserError

CHECKS: tuple[Callable[[Settings], Iterator[DoctorCheck]], ...] = (
    machine.check_versions,
    machine.check_memory,
    machine.check_home,
    machine.check_keys,
    machine.check_gpu,
    machine.check_port,
    machine.check_data,
    addresses.check_mlflow,
    addresses.check_prefect,
    addresses.check_milvus,
    addresses.check_ray,
    addresses.check_dvc,
    addresses.check_checkpoints,
    addresses.check_endpoint,
    addresses.check_switch,
    addresses.check_edits,
    addresses.check_traces,
)


def examine(settings: Settings) -> list[DoctorCheck]:
    """Run all checks side by side; findings come in the order of ``CHECKS``."""

    def run(check: Callable[[Settings], Iterator[DoctorCheck]]) -> list[DoctorCheck]:
        try:
            return list(check(settings))
        except UserError as error:
            message, _, todo = str(error).partition("; ")
            return [failure(check.__name__.removeprefix("check_"), message, todo)]
        except Exception as error:  # a doctor who falls ill says so and sees the next patient
            name = check.__name__.removeprefix("check_")
            message = f"the check itself failed: {type(error).__name__}: {error}"
            return [failure(name, message, "tell it to us, with MULAN_DEBUG=1's traceback")]

    with ThreadPoolExecutor(len(CHECKS)) as pool:
        return [finding for findings in pool.map(run, CHECKS) for finding in findings]
