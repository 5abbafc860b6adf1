"""DVC, which versions a workspace's data: its stages run in this process, and it says nothing of its own.

The working folder belongs to the whole process, in whose threads Ray and Prefect are at work: it is never changed, and
DVC is given whole paths. Its command line is called for remotes alone.
"""

from __future__ import annotations

import json
import logging
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from flows.runtime import ending
from mulan_core.errors import UserError
from serving.supervised_process import die_with_parent

DVC_YAML = "dvc.yaml"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
OURS = ["mulan", "stage"]
"""How a command of ``dvc.yaml`` begins that we run without starting a process."""


def bring_up_to_date(folder: Path, run: Callable[..., object]) -> None:
    """Do what ``dvc repro`` does: its stages, its order, its cache and its ``dvc.lock``.

    Args:
        folder: of ``dvc.yaml``.
        run: called with the words after ``mulan stage`` of each stage that DVC finds changed. A stage that has another
            command is run as DVC runs it, in a process.

    Raises:
        UserError: if DVC cannot read or keep something. What ``run`` raises comes through, and ``dvc.lock`` stays as
            it was before that stage.
    """
    from dvc.repo import lock_repo
    from dvc.repo.reproduce import get_active_graph, plan_repro

    with open_repo(folder) as repo, lock_repo(repo), repo.scm_context(quiet=True):
        repo.stage_cache._create_stage = partial(_stage_of_run_cache, repo)
        graph = get_active_graph(repo.index.graph)
        # By its path, not as a target: in those ":" and "@" mean something else.
        for stage in plan_repro(graph, repo.stage.load_all(str(Path(repo.root_dir, DVC_YAML)))):
            _reproduce(stage, run, upstream=list(graph.successors(stage)))


@contextmanager
def open_repo(folder: Path) -> Iterator[Any]:
    """Open a workspace as DVC's ``Repo``, silently.

    Raises:
        UserError: for whatever DVC complains of.
    """
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.logger import set_loggers_level
    from dvc.repo import Repo

    try:
        # Resolved as the working folder of a ``dvc`` by hand is: DVC knows a repository by its path.
        with set_loggers_level(logging.CRITICAL), Repo(str(folder.resolve())) as repo:
            yield repo
    except LockError as error:
        raise UserError(f"a dvc is at work in {folder}; wait for it to end, or stop it") from error
    except DvcException as error:
        check_dvc(folder)
        message = " ".join(COLOURS.sub("", str(error)).split())
        raise UserError(f"DVC fails in {folder}: {message}") from error
    except PermissionError as error:
        refused = f"{error.filename or folder} cannot be written ({error.strerror})"
        raise UserError(f"{refused}; give yourself the right to work in {folder}") from error


def _reproduce(stage: Any, run: Callable[..., object], *, upstream: list[Any]) -> None:
    """Run a stage where DVC finds it changed, and note it in ``dvc.lock``."""
    ending.check()
    words = shlex.split(stage.cmd) if isinstance(stage.cmd, str) else []
    if words[:2] == OURS:
        stage._run_stage = lambda *_, **__: _fill_outputs(stage, partial(run, *words[2:]))
    if stage.reproduce(upstream=upstream):
        with ending.uninterrupted():
            stage.dump(update_pipeline=False)


def _fill_outputs(stage: Any, run: Callable[[], object]) -> None:
    """Take a stage's outputs from DVC's run cache, or else make them; others may ask DVC of this folder meanwhile."""
    from dvc.stage.cache import RunCacheNotFoundError
    from dvc.stage.decorators import unlocked_repo

    try:
        stage.repo.stage_cache.restore(stage)
    except RunCacheNotFoundError:
        stage.save_deps()
        unlocked_repo(lambda _: run())(stage)


def _stage_of_run_cache(repo: Any, cache: dict[str, Any], wdir: str) -> Any:
    """A stage as the run cache keeps it. DVC's own function looks for ``dvc.yaml`` in the working folder."""
    from dvc.stage import PipelineStage, create_stage
    from dvc.stage.loader import StageLoader

    path, outs = str(Path(wdir, DVC_YAML)), [out["path"] for out in cache["outs"]]
    stage = create_stage(PipelineStage, repo=repo, path=path, cmd=cache["cmd"], wdir=wdir, outs=outs)
    StageLoader.fill_from_lock(stage, cache)
    return stage


def init_dvc(folder: Path) -> None:
    """Make a folder a DVC repository; one that is stays as it is, and one that was half made is finished.

    Raises:
        UserError: if its configuration is damaged.
    """
    settings = folder / ".dvc" / "config"
    written = settings.read_text(encoding="utf-8", errors="replace") if settings.exists() else ""
    if "no_scm" in written and "hardlink" in written:
        return
    from dvc.config import Config, ConfigError

    try:
        with Config(str(settings.parent)).edit() as config:
            config["core"] |= {"no_scm": "true", "analytics": "false"}
            # DVC's own default copies where a file system cannot share blocks, which doubles a catalogue's space; so
            # does a list that begins with reflink (findings/dvc_reflink_first.sh).
            config["cache"]["type"] = "hardlink,copy"
    except ConfigError:
        check_dvc(folder)
        raise


def run_dvc(arguments: list[str], folder: Path) -> None:
    """Run a DVC command in a folder; its own words go to the terminal, whose Ctrl-C reaches us alone.

    Raises:
        UserError: if DVC fails.
    """
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=folder, check=False, preexec_fn=die_with_parent, start_new_session=True)
    if done.returncode:
        check_dvc(folder)
        raise UserError(f"`dvc {' '.join(arguments)}` failed in {folder} (see its message above)")


def check_dvc(folder: Path) -> None:
    """Say what ails DVC's own files in a folder, where it failed.

    Raises:
        UserError: if one is damaged.
    """
    from dvc.config import Config, ConfigError

    for name in ("config", "config.local"):
        path = folder / ".dvc" / name
        try:
            if path.exists():
                Config.load_file(str(path))
        except (ConfigError, OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:160]
            raise UserError(
                f"{path} is damaged ({reason}); put it back as it was, or move the folder {path.parent} away and run "
                "`mulan prepare`, which makes it again"
            ) from error
    held = folder / ".dvc" / "tmp" / "rwlock"
    try:
        json.loads(held.read_bytes() if held.exists() else "{}")
    except ValueError as error:
        raise UserError(f"{held} is damaged; delete it (it holds no data) while no dvc runs in {folder}") from error
