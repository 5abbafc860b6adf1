"""MLflow's local database: its address, and whether it can be used: whole, and of this MLflow's schema."""

from __future__ import annotations

import re
import shlex
import sqlite3
from contextlib import closing
from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, unquote

from mulan_core.errors import UserError

MAGIC = b"SQLite format 3\0"
MAX_CHECKED = 64 * 2**20
"""Larger databases are not read through at each command, only looked at; ``mulan doctor`` reads them too."""
RESTORE = "put a copy of it back, or move it away to begin without its runs and models"


def database_uri(path: Path, driver: str = "") -> str:
    """SQLAlchemy's address of a SQLite file, whatever its path holds.

    Args:
        path: of the file, absolute.
        driver: of SQLite, where another than its default is wanted.
    """
    plain = str(path)
    if "%" not in plain and "?" not in plain:
        return f"sqlite+{driver}:///{plain}" if driver else f"sqlite:///{plain}"
    # SQLAlchemy takes % for an escape and ? for the end. The driver is named since MLflow, at an address that begins
    # with sqlite:///, also makes the folder that it reads there, which is another one where something is escaped.
    return f"sqlite+{driver or 'pysqlite'}:///{plain.replace('%', '%25').replace('?', '%3F')}"


def database_path(uri: str) -> Path | None:
    """The file behind an address; None where it is none, as of a server or of a database in memory."""
    scheme, separator, rest = uri.partition(":///")
    name = unquote(rest.partition("?")[0])
    if not separator or scheme.partition("+")[0] != "sqlite" or name in ("", ":memory:"):
        return None
    return Path(name).absolute()


def check_database(path: Path, *, thorough: bool = False) -> None:
    """Refuse a database that MLflow could not use, or would take for an empty one.

    Args:
        path: of the file, which need not exist.
        thorough: read it all, however large.

    Raises:
        UserError: what is wrong with it and what to do.
    """
    try:
        stat = path.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"MLflow's database {path} cannot be read: {error.strerror}") from error
    _check(path, (stat.st_ino, stat.st_mtime_ns, stat.st_size), thorough)


@lru_cache(maxsize=64)
def _check(path: Path, state: tuple[int, int, int], thorough: bool) -> None:
    """Once for each state of the file; errors are not remembered."""
    size = state[2]
    if path.is_dir():
        raise UserError(f"{path} is a folder where MLflow's database should be; move it away")
    if size == 0:
        # A new one is empty for a moment; one with runs whose files are there is not new.
        if any((path.parent / "artifacts").glob("*")):
            raise UserError(f"MLflow's database {path} is empty, while there are files of its runs; {RESTORE}")
        return
    try:
        with path.open("rb") as file:
            head = file.read(100)
    except OSError as error:
        raise UserError(
            f"MLflow's database {path} cannot be read: {error.strerror}; give yourself the right"
        ) from error
    if not head.startswith(MAGIC):
        raise UserError(f"MLflow's database {path} is no SQLite database; {RESTORE}")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=1)) as database:
            if thorough or size <= MAX_CHECKED:
                verdict = database.execute("PRAGMA quick_check(1)").fetchone()[0]
                if verdict != "ok":
                    raise _damaged(path, verdict)
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            rows = database.execute("SELECT version_num FROM alembic_version").fetchall() if tables & VERSIONED else []
    except sqlite3.OperationalError:
        return  # locked, or with a change to be rolled back, which is MLflow's to do
    except sqlite3.DatabaseError as error:
        raise _damaged(path, str(error)) from error
    if rows:
        _check_schema(path, rows[0][0])


VERSIONED = {"alembic_version"}


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"MLflow's database {path} is damaged ({' '.join(reason.split())[:120]}); {RESTORE}")


def _check_schema(path: Path, revision: str) -> None:
    revisions, latest = _schemas()
    if revision == latest:
        return
    version = metadata.version("mlflow")
    if revision in revisions:
        command = f"mlflow db upgrade {shlex.quote(database_uri(path))}"
        raise UserError(
            f"MLflow's database {path} has the schema of an older MLflow than {version}; keep a copy of it, then run "
            f"`{command}`"
        )
    raise UserError(
        f"MLflow's database {path} has a schema ({revision}) that MLflow {version} does not know, as of a newer one; "
        "install the MLflow that wrote it, or set MULAN_HOME to another folder"
    )


@lru_cache(maxsize=1)
def _schemas() -> tuple[frozenset[str], str]:
    """The revisions that the installed MLflow knows, and its own; read without importing it."""
    spec = find_spec("mlflow")
    package = Path(spec.origin).parent if spec and spec.origin else Path()
    revisions: set[str] = set()
    before: set[str] = set()
    for file in (package / "store" / "db_migrations" / "versions").glob("*.py"):
        words = file.read_text(encoding="utf-8")
        revisions |= set(re.findall(r"^revision\b.*=\s*[\"'](\w+)", words, re.MULTILINE))
        before |= set(re.findall(r"^down_revision\b.*=\s*[\"'](\w+)", words, re.MULTILINE))
    return frozenset(revisions), next(iter(revisions - before), "")
