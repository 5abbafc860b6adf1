"""The machine: packages, memory, disk, the home folder, keys, GPU, the endpoint's port."""

from __future__ import annotations

import os
import platform
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import psutil

from flows.doctor.addresses import endpoint_misses_keys
from flows.doctor.check import DoctorCheck, failure, ok, warning
from flows.runtime.catalogues import read_records
from flows.runtime.endpoint import endpoint_config, served
from flows.runtime.project import PROJECT, VERSION
from flows.runtime.settings import Settings
from flows.runtime.workspace import made_workspace
from mulan_core.errors import UserError
from serving.keys import KeyFile
from serving.ports import check_port_free

GB = 2**30
MIN_MEMORY_GB = 6
MIN_DISK_GB, ENOUGH_DISK_GB = 1, 5
LIBRARIES = ("torch", "transformers", "ray", "prefect", "mlflow", "dvc", "pymilvus")
"""Packages whose versions are told."""


def check_versions(_: Settings) -> Iterator[DoctorCheck]:
    """Python, the packages that matter, and how far the environment is from the lock."""
    libraries = ", ".join(f"{name} {_version(name) or 'missing'}" for name in LIBRARIES)
    yield ok("versions", f"MuLan {VERSION}, Python {platform.python_version()}, {libraries}")
    lock = read_lock(PROJECT / "constraints.txt")
    pinned = {name for name, exact in _own_requirements().items() if exact}
    installed = {name: _version(name) for name in lock}
    drifted = {name: have for name, have in installed.items() if have and have != lock[name]}
    missing = sorted(name for name in _own_requirements() if _version(name) is None)
    again = "install the locked packages again: make clean, then make test or make demo"
    if missing:
        yield failure("packages", f"missing: {', '.join(missing)}", again)
    wrong = [f"{name} {drifted[name]} instead of {lock[name]}" for name in sorted(pinned & drifted.keys())]
    if wrong:
        yield failure("packages", f"other versions than MuLan is made for: {', '.join(wrong)}", again)
    others = sorted(drifted.keys() - pinned)
    if others:
        sample = ", ".join(f"{name} {drifted[name]} instead of {lock[name]}" for name in others[:5])
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        yield warning("packages", f"not as the lock has them: {sample}{more}", again)
    if not missing and not drifted:
        count = sum(have is not None for have in installed.values())
        yield ok("packages", f"{count} of the {len(lock)} in the lock are installed, all of its versions")


def read_lock(path: Path) -> dict[str, str]:
    """Package -> version of a constraints file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    matches = (re.match(r"([\w.-]+)==([^\s;]+)", line) for line in lines)
    return {_plain(match[1]): match[2] for match in matches if match}


def _own_requirements() -> dict[str, bool]:
    """Package -> whether MuLan asks for one exact version of it; without those of extras."""
    asked = [line for line in metadata.requires("mulan") or [] if "extra ==" not in line]
    return {_plain(re.split(r"[\[<>=!~; ]", line, maxsplit=1)[0]): "==" in line for line in asked}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        return None


def check_memory(_: Settings) -> Iterator[DoctorCheck]:
    """Memory and cores."""
    memory = psutil.virtual_memory()
    summary = f"{memory.total / GB:.0f} GB of memory, {memory.available / GB:.0f} free; {os.cpu_count()} CPUs"
    if memory.total < MIN_MEMORY_GB * GB:
        yield warning("memory", summary, f"the demo needs about {MIN_MEMORY_GB} GB; stop other programs first")
    elif memory.available < 2 * GB:
        yield warning("memory", summary, "stop other programs before training")
    else:
        yield ok("memory", summary)


def check_home(settings: Settings) -> Iterator[DoctorCheck]:
    """The home folder: can it be written, and is there room."""
    home = settings.home
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=there):
            pass
    except OSError as error:
        todo = f"give yourself the right to write to {there}, or set MULAN_HOME to another folder"
        yield failure("home", f"{home} cannot be written: {error.strerror}", todo)
        return
    free = shutil.disk_usage(there).free / GB
    summary = f"{home}, {free:.0f} GB free" + ("" if home.exists() else " (not made yet)")
    if free < ENOUGH_DISK_GB:
        level = failure if free < MIN_DISK_GB else warning
        yield level("home", summary, "free some disk, or set MULAN_HOME to a folder on a larger one")
    else:
        yield ok("home", summary)


def check_keys(settings: Settings) -> Iterator[DoctorCheck]:
    """The file of API keys, by the endpoint's own rule."""
    path = settings.keys_file
    keys = KeyFile(path).look()
    if not keys.needed and endpoint_misses_keys(settings):
        keys = KeyFile(path, had_keys=True).look()
    if keys.fault:
        fault, _, todo = keys.fault.rpartition("; ")
        yield failure("API keys", f"nobody gets in: {fault}", todo)
    elif not keys.needed:
        yield ok("API keys", "none: whoever is on this machine may ask the endpoint, nobody else")
    elif mode := stat.S_IMODE(path.stat().st_mode) & 0o077:
        yield warning("API keys", f"{path} is open to its group (mode {mode | 0o600:o})", f"chmod 600 {path}")
    else:
        yield ok("API keys", f"{path}, for its owner alone")


def check_gpu(_: Settings) -> Iterator[DoctorCheck]:
    """GPUs, and whether torch can use them."""
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield ok("GPU", f"{', '.join(names)}; CUDA {torch.version.cuda}")
    elif shutil.which("nvidia-smi"):
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
        todo = "install the build of torch with CUDA" if not torch.version.cuda else "compare it with the driver's CUDA"
        yield warning("GPU", f"there is an NVIDIA driver, but {built} and sees no GPU", f"{todo} (nvidia-smi shows it)")
    else:
        yield ok("GPU", "none: training and encoding run on the CPU")


def check_data(settings: Settings) -> Iterator[DoctorCheck]:
    """Which data is prepared: of the catalogue that commands mean without a name, and of the others."""
    records = read_records(settings.home)
    current, prepared, looked, broken = records.current, dict[str, str](), set[Path](), set[str]()
    for name, catalogue in sorted(records.all().items(), key=lambda pair: pair[0] != current.name):
        workspace = made_workspace(settings.home, catalogue)
        if workspace is None or workspace.folder in looked:
            continue
        looked.add(workspace.folder)
        try:
            if data_hash := workspace.find_data_hash():
                prepared[name] = f"{data_hash[:8]} is prepared in {workspace.folder}"
        except UserError as error:
            message, _, todo = str(error).partition("; ")
            yield failure("data", message, todo)
            broken.add(name)
    if not looked:  # this folder is no workspace, and none was made
        return
    if current.name in prepared:
        yield ok("data", f"{current.name}, which commands mean without --catalogue: {prepared.pop(current.name)}")
    elif current.name not in broken:
        makes = "mulan demo" if current.workspace is None else f"mulan prepare --catalogue {current.name}"
        yield ok(
            "data", f"{current.name}, which commands mean without --catalogue: nothing is prepared; `{makes}` does"
        )
    for name, where in prepared.items():
        yield ok("data", f"{name}, meant by --catalogue {name}: {where}")


def check_port(settings: Settings) -> Iterator[DoctorCheck]:
    """The endpoint's port, where this machine is to serve."""
    if settings.url:
        return
    here = served(settings.home)
    for name, url in here.items():
        yield ok("port", f"the endpoint of {name} has {url}")
    catalogue = read_records(settings.home).current
    if catalogue.name in here:
        return
    serve = endpoint_config(settings, catalogue)
    try:
        check_port_free(serve.host, serve.port)
        yield ok("port", f"{serve.host}:{serve.port} is free for the endpoint")
    except UserError as error:
        yield warning("port", str(error), "stop it, or choose another: --port, or serve.port in the params")
