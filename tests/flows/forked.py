"""Runs ``mulan`` as often as the tests ask, each in a process forked from this one, which has imported what takes long.

On stdin comes a command as a line of JSON; its process id goes to stdout, and its exit code when it has ended. What
looks at the environment while it is imported (Ray, Prefect, and all of ours) is left to the command.
"""

import atexit
import gc
import json
import os
import sys
import threading
from importlib import import_module
from pathlib import Path

LIBRARIES = ("torch", "transformers", "mlflow", "sklearn.metrics", "pyarrow.parquet", "pyarrow.dataset", "pymilvus")
LIBRARIES += ("fastapi", "sqlalchemy", "soundfile", "soxr", "httpx", "typer", "rich.console", "rich.table", "psutil")

ended = SystemExit(0)


def end():
    """Without taking each library apart, which would write to all the memory that is shared, for two seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ended.code or 0)


def fork_each():
    """Fork for each command; returns in the child, with what it is to do."""
    for line in sys.stdin:
        if (pid := os.fork()) == 0:
            return json.loads(line)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")
        sys.stdout.flush()
    sys.exit()


def become(asked):
    """Take on the command's words, folder, environment and files."""
    sys.argv[:], sys.path[0] = asked["command"], str(Path(asked["command"][0]).parent)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    writing = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for fd, file in enumerate((os.open(os.devnull, os.O_RDONLY), *(os.open(name, writing) for name in asked["said"]))):
        os.dup2(file, fd)
        os.close(file)


if __name__ == "__main__":
    atexit.register(end)  # as the first, so it comes last
    for library in LIBRARIES:
        import_module(library)
    assert threading.active_count() == 1, "a fork takes no other thread along"
    gc.freeze()  # a collection would write to the memory that is shared
    become(fork_each())
    from flows.cli.start import main

    try:
        main()
    except SystemExit as said:
        ended = said
