"""The local stack: Prefect's server, Milvus Lite and Ray, started once a catalogue, joined by whoever comes later.

Whoever opens the stack first owns it and takes it down; a flow started from the Prefect UI joins the
stack of a running ``mulan serve``. Where PREFECT_API_URL, MULAN_MILVUS_URI or RAY_ADDRESS name real
servers, those are used and never stopped.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import psutil

from flows.runtime import ending
from flows.runtime.file_lock import try_lock
from flows.runtime.library_log import into_log, log_warnings
from flows.runtime.moved import make_home
from flows.runtime.prefect_server import PrefectServer, find_api, report_to
from flows.runtime.settings import Settings
from flows.runtime.stack_file import FILE, LOCK, Stack, read_stack, write_owner, write_stack
from flows.runtime.terminal import errors
from mulan_core.errors import UserError
from serving.milvus import MilvusServer

_Server = TypeVar("_Server", MilvusServer, PrefectServer)
_owned: ContextVar[Path | None] = ContextVar("owned", default=None)
"""The state folder of the stack that this process owns."""
RAY_CPUS_LEAST = 4
"""Logical CPUs of a private Ray: two trainers, a Tune trial and the endpoint must fit on a laptop of two cores."""


@contextmanager
def open_stack(settings: Settings, state: Path, *, join: bool = True, ahead: str | None = None) -> Iterator[Stack]:
    """Start the local services of a catalogue, or join those that run; stop what was started here, whatever happens.

    Args:
        settings: addresses; a named server is used instead of one of our own.
        state: the catalogue's state folder (``Catalogue.state``).
        join: use the stack of another process of the same catalogue. False makes that an error.
        ahead: a module that the caller imports next; it is imported while the services start, which takes as long.

    Raises:
        UserError: if another process holds the stack and ``join`` is false, or a service does not start.
    """
    make_home(settings.home)
    state.mkdir(parents=True, exist_ok=True)
    Path(os.environ.get("PREFECT_HOME", settings.home)).mkdir(parents=True, exist_ok=True)  # it makes one level only
    with ExitStack() as cleanup:
        # Ray prints its warnings to stdout, where ``--json`` promises an object and nothing else.
        cleanup.enter_context(redirect_stdout(sys.stderr))
        lock = cleanup.enter_context((state / LOCK).open("a"))  # it says who has it, so it is not cut
        if not try_lock(lock):
            running = _running(state)
            if not join:
                raise UserError(taken(state, running))
            cleanup.enter_context(_joined(running))
            yield running
            return
        file = state / FILE
        file.unlink(missing_ok=True)  # an owner that was killed has left it
        owner = write_owner(lock)
        if not join:  # who waits for an endpoint sees that something happens, in a log file too
            errors.print("mulan: starting the services: Milvus, Prefect's server, Ray")
        cleanup.callback(file.unlink, missing_ok=True)
        ending.remove_at_end(file)
        # All are started, then all are waited for: each spends its first seconds importing.
        servers: list[MilvusServer | PrefectServer] = []
        cleanup.callback(_stop, servers)
        milvus_uri = settings.milvus_uri or _launch(MilvusServer(state / "milvus"), servers).uri
        prefect_url = find_api()
        if prefect_url is None:
            prefect_url = _launch(PrefectServer(state / "prefect.log"), servers).url
            cleanup.enter_context(report_to(prefect_url))
        # Where an endpoint is to be served Ray starts now; else when a stage needs it: most runs find little to do.
        waits = join and settings.ray_address is None
        if ahead:
            modules = [ahead] if waits else [ahead, "serving.deployment"]
            threading.Thread(target=_try_import, args=modules, daemon=True, name="import ahead").start()
        ray_address = "" if waits else _start_ray(settings.ray_address)
        for server in servers:
            server.wait()
        stack = Stack(
            prefect_url=prefect_url,
            milvus_uri=milvus_uri,
            ray_address=ray_address,
            ray_auth_mode=os.environ.get("RAY_AUTH_MODE", ""),
            pid=owner.pid,
            started=owner.started,
        )
        write_stack(state, stack)
        cleanup.callback(_owned.reset, _owned.set(state))
        yield stack


def _launch(server: _Server, servers: list[Any]) -> _Server:
    servers.append(server)
    server.launch()
    return server


def need_ray() -> None:
    """Start the stack's own Ray, unless it runs; what uses Ray says so first.

    Raises:
        UserError: if it does not start.
    """
    import ray

    if ray.is_initialized():
        return
    address = _start_ray(None)
    if (state := _owned.get()) and (stack := read_stack(state)):
        write_stack(state, replace(stack, ray_address=address, ray_auth_mode=os.environ.get("RAY_AUTH_MODE", "")))


@contextmanager
def _joined(running: Stack) -> Iterator[None]:
    """Report to the Prefect of another process, and connect to its Ray; to one of our own where it has needed none."""
    with ExitStack() as cleanup:
        if find_api() is None:
            cleanup.enter_context(report_to(running.prefect_url))
        cleanup.callback(_stop_ray)
        if not running.ray_address:
            cleanup.callback(_reap_ray)
            yield
            return
        if running.ray_auth_mode == "token":
            _send_ray_token()
        if running.ray_address.startswith("127."):
            _keep_ray_on_loopback()
        _start_ray(running.ray_address)
        yield


def _try_import(*modules: str) -> None:
    """Whatever goes wrong in there goes wrong again, and is told, where the caller imports it."""
    with suppress(Exception):
        for module in modules:
            import_module(module)


def taken(state: Path, running: Stack) -> str:
    """What to say to whoever wants a catalogue for itself for which a mulan runs."""
    return (
        f"another mulan is running in {state} (process {running.pid}, since {running.started}); stop it first "
        "(Ctrl-C), take another catalogue (--catalogue NAME), or set MULAN_HOME to another folder"
    )


def _running(state: Path) -> Stack:
    for _ in range(120):
        if stack := read_stack(state):
            return stack
        time.sleep(0.5)  # its owner is still starting
    raise UserError(f"another mulan has been starting in {state} for a minute; stop it and try again")


def _start_ray(address: str | None) -> str:
    import ray

    private = address is None
    if private:
        _keep_ray_on_loopback()
        # Nobody preempts the only node; the watcher is one more process to start before each training.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    options: dict[str, Any] = {"num_cpus": max(RAY_CPUS_LEAST, os.cpu_count() or 1)} if private else {}
    log_warnings()
    try:
        with into_log():  # Ray's core says on stderr that it was told to say nothing
            ray.init(
                address=address or "local",
                include_dashboard=False if private else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **options,
            )
    except Exception as error:  # Ray raises Exception itself where its processes are not up in time
        ray.shutdown()
        why = (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0].rstrip(".")
        if address:
            todo = "start it, or correct RAY_ADDRESS, or RAY_AUTH_TOKEN where it wants a token"
            raise UserError(f"Ray does not answer at {address}: {why}; {todo}") from error
        todo = "the machine may be too busy or out of memory: run the command again when it is less so"
        raise UserError(f"Ray did not start on this machine: {why}; {todo}") from error
    ending.take_back()
    quiet_ray_data()
    return str(ray.get_runtime_context().gcs_address)


@contextmanager
def ray_for_stage() -> Iterator[None]:
    """Have Ray for a stage: that of the stack; else that of RAY_ADDRESS, or a private one, as for a DVC by hand."""
    import ray

    if _owned.get() or ray.is_initialized():
        need_ray()
        yield
        return
    _start_ray(os.environ.get("RAY_ADDRESS"))
    try:
        yield
    finally:
        _stop_ray()


def _keep_ray_on_loopback() -> None:
    """Have a Ray of this machine alone bind 127.0.0.1, and find it there.

    Ray replaces that address by the machine's, unless it believes that this kind of machine has no clusters.
    The variable is for the processes that it starts; this one may have imported Ray, and read it, by now.
    """
    if os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0") == "0":
        from ray._private import ray_constants

        ray_constants.ENABLE_RAY_CLUSTER = False


def _send_ray_token() -> None:
    """Authenticate as the owner did.

    Ray does so by itself for a cluster that it starts, not for one that it joins; and it has read its
    configuration by now, so setting the variable alone would come too late.
    """
    from ray._private.authentication.authentication_token_setup import _enable_token_auth

    _enable_token_auth()


def quiet_ray_data() -> None:
    """Keep Ray Data's own bars and tables off the terminal; the flows draw one bar a stage."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray.train", "ray.tune", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _stop(servers: Sequence[MilvusServer | PrefectServer]) -> None:
    """End everything that was started here, all at once: each takes seconds."""
    with ending.shielded():
        for server in servers:
            server.begin_stop()
        _stop_ray()
        for server in servers:
            server.stop()
        _reap_ray()


def _stop_ray() -> None:
    with ending.shielded():
        if ray := sys.modules.get("ray"):
            ray.shutdown()


def _reap_ray() -> None:
    """End what Ray leaves behind; ``ray.shutdown`` does not wait for its processes."""
    children = [child for child in psutil.Process().children(recursive=True) if _is_of_ray(child)]
    _, alive = psutil.wait_procs(children, timeout=5)
    for child in alive:
        child.terminate()
    _, alive = psutil.wait_procs(alive, timeout=5)
    for child in alive:
        child.kill()


def _is_of_ray(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return any("/ray/" in part or part.startswith("ray::") for part in process.cmdline())
    return False
