"""A command that is told to end does end, whatever swallows the signal, and takes its children with it."""

import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from flow_fixtures import ROOT, environment

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

SWALLOWED = {
    "except BaseException": """
        while True:
            with suppress(BaseException):
                time.sleep(60)
    """,
    "a handler of a library": """
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, lambda *_: None)
        while True:
            time.sleep(60)
    """,
    "a finaliser": """
        class Dropped:
            def __del__(self):
                time.sleep(0.3)
        while True:
            Dropped()
    """,
    "a callback of C": """
        import ctypes
        back = ctypes.CFUNCTYPE(None)(lambda: time.sleep(60))
        while True:
            back()
    """,
    "cleaning up that hangs": """
        try:
            time.sleep(60)
        finally:
            with ending.shielded():
                time.sleep(60)
    """,
    "asyncio": """
        async def deaf():
            with suppress(BaseException):
                await asyncio.sleep(60)
        while True:
            asyncio.run(deaf())
    """,
    "a thread that is waited for": """
        worker = threading.Thread(target=time.sleep, args=(60,))
        worker.start()
        worker.join()
    """,
    "an error made of it": """
        try:
            time.sleep(60)
        except BaseException as error:
            raise RuntimeError("the library failed") from error
    """,
    "an exit of its own": """
        try:
            time.sleep(60)
        except BaseException:
            sys.exit(0)
    """,
}


def start(body, home, *, ends_within_s=1.0, **options):
    """A program with ``ending`` on watch, as a command is, and children that would outlive it."""
    program = f"""
import asyncio, os, signal, subprocess, sys, threading, time
from contextlib import suppress
from flows.runtime import ending
ending.ENDS_WITHIN_S, ending._REMIND_AFTER_S, ending._KILLED_AFTER_S = {ends_within_s}, (0.3, 0.6), 0.2
ending.watch()
def run():
{textwrap.indent(textwrap.dedent(body), "    ")}
stays = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(99)"
between = f"import subprocess as s, sys; s.Popen([sys.executable, '-c', {{stays!r}}], start_new_session=True).wait()"
subprocess.Popen([sys.executable, "-c", between], start_new_session=True, stdout=-3, stderr=-3)  # DEVNULL
print("on", flush=True)
try:
    run()
except BaseException:
    ending.end_if_signalled()
    raise
ending.end_if_signalled()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=environment(home) | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip
    assert process.stdout.readline() == "on\n"
    family = []
    deadline = time.monotonic() + 20
    while len(family) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
        family = psutil.Process(process.pid).children(recursive=True)
    time.sleep(0.1)
    return process, family


def check_ended(process, family, code):
    _, said = process.communicate(timeout=20)
    assert process.returncode == code, said
    assert said == "mulan: stopped\n"
    assert len(family) == 2 and not [one for one in family if is_running(one)]


def is_running(process):
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@pytest.mark.parametrize("swallowed", SWALLOWED)
def test_nothing_swallows_it(swallowed, tmp_path):
    process, family = start(SWALLOWED[swallowed], tmp_path)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    process.wait(20)
    assert time.monotonic() - began < 8
    check_ended(process, family, 130)


@pytest.mark.parametrize("signum", SIGNALS)
def test_each_has_its_code(signum, tmp_path):
    process, family = start("time.sleep(60)", tmp_path)
    process.send_signal(signum)
    check_ended(process, family, 128 + signum)


def test_a_second_one_changes_nothing(tmp_path):
    body = """
        try:
            time.sleep(60)
        finally:
            time.sleep(0.2)
            print("cleaned", flush=True)
    """
    process, _ = start(body, tmp_path, ends_within_s=5.0)
    for signum in (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        process.send_signal(signum)
        time.sleep(0.03)
    said, _ = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, "cleaned\n")


def test_a_loop_that_waits_sees_at_once_what_was_swallowed(tmp_path):
    body = """
        with suppress(KeyboardInterrupt):
            time.sleep(60)
        while True:
            ending.check()
            time.sleep(0.05)
    """
    process, family = start(body, tmp_path, ends_within_s=30.0)
    process.send_signal(signal.SIGINT)
    check_ended(process, family, 130)


def test_a_signal_to_a_forked_child_is_the_child_s(tmp_path):
    body = """
        child = os.fork()
        if child == 0:
            time.sleep(60)
        time.sleep(0.3)
        os.kill(child, signal.SIGTERM)
        status = os.waitpid(child, 0)[1]
        time.sleep(0.5)
        print(os.WTERMSIG(status), ending.signalled(), flush=True)
    """
    process, family = start(body, tmp_path)
    said, _ = process.communicate(timeout=20)
    assert (process.returncode, said) == (0, f"{int(signal.SIGTERM)} False\n")
    for one in family:
        with suppress(psutil.Error):
            one.kill()


def test_nohup_outlives_its_terminal(tmp_path):
    process, family = start("time.sleep(60)", tmp_path, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    check_ended(process, family, 130)


@pytest.mark.parametrize(("pause_s", "signum"), [(0.0, signal.SIGINT), (0.0, signal.SIGTERM), (0.2, signal.SIGINT)])
def test_a_command_that_still_imports_ends_without_a_traceback(pause_s, signum, tmp_path):
    """From the first lines of the entry on; before them Python itself answers the signal."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli.start", "ui", "--port", "1"], cwd=tmp_path, env=environment(tmp_path),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not watches(process.pid):
        time.sleep(0.002)
    time.sleep(pause_s)
    process.send_signal(signum)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (128 + signum, "mulan: stopped\n")


def watches(pid):
    caught = int(Path(f"/proc/{pid}/status").read_text().split("SigCgt:")[1].split()[0], 16)
    return bool(caught >> (signal.SIGUSR2 - 1) & 1)
