"""A home that was moved or copied: its own records name the place where it was, and are corrected once.

MLflow keeps where files lie as absolute addresses. They are rewritten in one transaction when the home is first opened
elsewhere, so that nothing is read from the old place or written there. Paths in data that has a hash stay as they are;
``Places.here`` says where such a file is now.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from mulan_core.errors import UserError
from mulan_core.files import write_whole
from serving.places import Places

FILE = "places.json"
"""In a home: where it was before, the earliest first, and where it is."""
ADDRESSES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "model_versions": ("source", "storage_location"),
    "logged_models": ("artifact_location",),
    **dict.fromkeys(
        (
            "tags",
            "experiment_tags",
            "registered_model_tags",
            "model_version_tags",
            "logged_model_tags",
            "trace_tags",
        ),
        ("value",),
    ),
}
"""Tables and columns of MLflow's that name files."""


def make_home(home: Path) -> None:
    """Make the folder of a home, or see that it can be written.

    Raises:
        UserError: if it cannot.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise UserError(
            f"{home} cannot be written ({error.strerror}); give yourself the right to write there, or set MULAN_HOME "
            "to another folder"
        ) from error


def read_places(home: Path) -> Places:
    """Where a home was, as it has kept."""
    return Places(home, tuple(folder for folder in _noted(home) if folder != str(home)))


def settle(home: Path, database: Path | None, *, note: bool = False) -> None:
    """Correct the records of a home that has come from elsewhere; once, and in no other case anything.

    Args:
        home: where it is now, absolute.
        database: MLflow's, in it; None where MLflow is a server. One that was copied without its files stays as it is.
        note: keep where the home is, though it has never moved; a command that only reads leaves that.

    Raises:
        UserError: if they cannot be written.
    """
    noted = _noted(home)
    was = (_place_of(database) if database else None) or (noted[-1] if noted else None)
    alone = database and not (home / "artifacts").exists() and (Path(was or "") / "artifacts").exists()
    if was is None or was == str(home) or alone or _is_same(was, home, database):
        if note and not noted:
            _write(home, [str(home)])
        return
    try:
        count = _rewrite(database, was, str(home)) if database else 0
        _write(home, [*(folder for folder in noted if folder not in (was, str(home))), was, str(home)])
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"{home} was {was} before, and its records cannot be corrected ({reason}); give yourself the right to "
            "write there, or copy it to where you have it"
        ) from error
    sys.stderr.write(f"mulan: this home was {was} before; {count:,} of its records now say {home}\n")


def _noted(home: Path) -> list[str]:
    try:
        folders = json.loads((home / FILE).read_text(encoding="utf-8"))["places"]
        return [str(folder) for folder in folders]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _write(home: Path, places: list[str]) -> None:
    write_whole(home / FILE, json.dumps({"places": places}))


def _is_same(was: str, home: Path, database: Path | None) -> bool:
    """Whether the old folder is this very one under another name, as a mount may give it."""
    new_path, old_path = (database, Path(was) / database.name) if database else (home, Path(was))
    try:
        return new_path.samefile(old_path)
    except OSError:
        return False


def _place_of(database: Path) -> str | None:
    """The home of a database: our experiment's artifacts lie beside it. None where somebody chose another place."""
    if not database.is_file():
        return None
    try:
        with closing(_connect(database, "ro")) as connection:
            row = connection.execute("SELECT artifact_location FROM experiments WHERE name = 'mulan'").fetchone()
    except sqlite3.Error:  # a new one has no tables yet
        return None
    address = urlsplit(row[0]) if row and row[0] else None
    path = Path(unquote(address.path)) if address and address.scheme == "file" else None
    return str(path.parent) if path and path.name == "artifacts" else None


def _rewrite(database: Path, was: str, now: str) -> int:
    """Replace the old place wherever an address begins with it; returns in how many records."""
    count = 0
    with closing(_connect(database, "rw")) as connection:
        connection.isolation_level = None
        connection.execute("BEGIN IMMEDIATE")
        for table, columns in ADDRESSES.items():
            there = {name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")}
            for column in there.intersection(columns):
                for old, new in ((was, now), (Path(was).as_uri(), Path(now).as_uri())):
                    # The names are ours, the places are bound.
                    changed = connection.execute(
                        f"UPDATE {table} SET {column} = ?2 || substr({column}, length(?1) + 1) "  # noqa: S608
                        f"WHERE {column} = ?1 OR substr({column}, 1, length(?1) + 1) = ?1 || '/'",
                        (old, new),
                    )
                    count += changed.rowcount
        connection.execute("COMMIT")
    return count


def _connect(database: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(database))}?mode={mode}", uri=True, timeout=30)
