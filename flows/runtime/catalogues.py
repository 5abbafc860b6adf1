"""The catalogues of a home by name: the table, workspace and registered model of each, and which was used last.

``catalogues.json`` keeps them. A home of an earlier version has no such file: its catalogues are known by their
workspaces then, and their models are versions of ``mulan`` until a command that writes adopts them
(``flows/upkeep.py``).
"""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from flows.runtime.moved import read_places
from mulan_core.data.uris import is_remote, local_path
from mulan_core.errors import UserError
from mulan_core.files import write_whole

FILE = "catalogues.json"
MODEL_NAME = "mulan"
"""The registered model of the demo, and of every catalogue before each had one."""
DEMO = "demo"
"""The name of the working folder's catalogue: the demo's in a checkout."""
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
MAX_NAME = 40
_OWN_WORKSPACE = re.compile(r"(?P<stem>.*)-[0-9a-f]{8}")


@dataclass(frozen=True)
class Catalogue:
    """What belongs together under one name."""

    name: str
    workspace: str | None = None
    """Its folder, relative to the home; None for that of the working folder, which need not lie in the home."""
    model: str = MODEL_NAME
    """Its registered model in MLflow."""
    manifest: str | None = None
    """Path or URL of its table; None for the demo, and where a version that did not keep it made the workspace."""
    playlists: str | None = None
    used: str | None = None
    """When a command last worked on it, ISO 8601."""
    renaming: str | None = None
    """The name that it is being given; a rename that was cut off goes on with the next command that writes."""

    def folder(self, home: Path) -> Path | None:
        """Its workspace; None where that is the working folder, whichever it is."""
        return home / self.workspace if self.workspace else None

    def state(self, home: Path) -> Path:
        """The folder of what runs for it and what was done to it over the API; the demo's is the home itself."""
        return home / self.workspace / ".mulan" if self.workspace else home

    def query_log(self, home: Path) -> Path:
        """The folder of what its endpoint was asked, where that is kept."""
        return self.state(home) / "queries"

    @property
    def key(self) -> str:
        """What the names of its collections have in them, in letters that Milvus takes; empty for the demo.

        It is made of the workspace's folder, which is another for each table and stays when the catalogue is renamed.
        """
        folder = Path(self.workspace or "").name[-MAX_NAME:]
        return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in folder)

    @property
    def live_alias(self) -> str:
        """Milvus' alias of its live collection."""
        from serving.store import LIVE_ALIAS

        return f"tracks_{self.key}_live" if self.key else LIVE_ALIAS


@dataclass
class Records:
    """The catalogues of one home."""

    by_name: dict[str, Catalogue] = field(default_factory=dict)
    last: str | None = None
    """The name of the one that a command last worked on."""

    def all(self) -> dict[str, Catalogue]:
        """Every catalogue by its name; the demo is one though nobody has made it yet."""
        return {DEMO: Catalogue(DEMO)} | self.by_name

    def of_folder(self, home: Path, folder: Path) -> Catalogue:
        """The catalogue of a workspace, with a name that is free where it has none yet."""
        if folder.parent != home / "workspaces" or not (own := _OWN_WORKSPACE.fullmatch(folder.name)):
            return self.by_name.get(DEMO, Catalogue(DEMO))
        workspace = str(folder.relative_to(home))
        matches = (catalogue for catalogue in self.by_name.values() if catalogue.workspace == workspace)
        name = _free_name(own["stem"], {DEMO, *self.by_name})
        return next(matches, Catalogue(name, workspace, f"{MODEL_NAME}-{name}"))

    @property
    def current(self) -> Catalogue:
        """The one that a command last worked on, at first the demo."""
        return self.named(self.last or DEMO)

    def latest(self, names: Collection[str]) -> str | None:
        """Of some names that of the catalogue used last; None of none."""
        used = {name: self.by_name.get(name, Catalogue(name)).used or "" for name in names}
        return max(used, key=lambda name: (name == self.last, used[name]), default=None)

    def named(self, name: str) -> Catalogue:
        """A catalogue by its name.

        Raises:
            UserError: with the names that there are.
        """
        if name in self.by_name or name == DEMO:
            return self.by_name.get(name, Catalogue(DEMO))
        names = ", ".join(sorted({DEMO, *self.by_name}))
        raise UserError(
            f"there is no catalogue {name!r} here; there are: {names}; `mulan prepare --manifest FILE` makes one"
        )


def has_records(home: Path) -> bool:
    """Whether the home keeps its catalogues by name."""
    return (home / FILE).exists()


def read_records(home: Path) -> Records:
    """The catalogues of a home; those of one of an earlier version have its only model.

    Raises:
        UserError: if the file is damaged.
    """
    path, places = home / FILE, read_places(home)
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        catalogues = {name: Catalogue(name=name, **values) for name, values in kept["catalogues"].items()}
        last = None if kept["last"] is None else str(kept["last"])
    except FileNotFoundError:
        records = Records()
        for folder in sorted((home / "workspaces").glob("*")):
            if (folder / "params.yaml").is_file() and (catalogue := records.of_folder(home, folder)).workspace:
                records.by_name[catalogue.name] = replace(catalogue, model=MODEL_NAME)
        return records
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or "it is damaged"
        raise UserError(
            f"{path} cannot be read ({reason}); put it back from a copy, or delete it: catalogues are then named by "
            "their workspaces again"
        ) from error
    here = {
        name: replace(
            catalogue,
            manifest=catalogue.manifest and places.here(catalogue.manifest),
            playlists=catalogue.playlists and places.here(catalogue.playlists),
        )
        for name, catalogue in catalogues.items()
    }
    return Records(here, last)


@contextmanager
def changing(home: Path) -> Iterator[Records]:
    """The catalogues, to be changed by one process at a time; they are written when the block ends without an error."""
    home.mkdir(parents=True, exist_ok=True)
    path = home / FILE
    with (home / f".{FILE}.lock").open("a") as lock:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        records = read_records(home)
        yield records
        kept = {name: asdict(catalogue) for name, catalogue in records.by_name.items()}
        for values in kept.values():
            del values["name"]
        write_whole(path, json.dumps({"catalogues": kept, "last": records.last}, indent=1))


def find_catalogue(home: Path, folder: Path) -> Catalogue:
    """The catalogue of a workspace; nothing is written."""
    return read_records(home).of_folder(home, folder)


def note_use(home: Path, folder: Path, *, manifest: str | None = None, playlists: str | None = None) -> Catalogue:
    """Keep that a command works on a workspace, and where its table lies; playlists stay until others are given."""
    with changing(home) as records:
        catalogue = records.of_folder(home, folder)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        given = {"manifest": manifest, "playlists": playlists} if catalogue.workspace else {}
        locations = {part: full_place(location) for part, location in given.items() if location}
        records.by_name[catalogue.name] = replace(catalogue, used=now, **locations)
        records.last = catalogue.name
        return records.by_name[catalogue.name]


def full_place(location: str | Path) -> str:
    """A URL as it is, a path as an absolute one."""
    return str(location) if is_remote(location) else str(Path(local_path(location)).resolve())


def check_free(records: Records, name: str) -> None:
    """Refuse a name that no catalogue can get.

    Raises:
        UserError: saying why.
    """
    if not NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise UserError(
            f"{name!r} cannot name a catalogue; give small letters and digits, with single dashes between them, "
            f"{MAX_NAME} at most"
        )
    if name == DEMO or name in records.by_name:
        raise UserError(f"there is a catalogue {name} already; give another name")


def _free_name(stem: str, taken: set[str]) -> str:
    """A stem in letters that every system takes; numbered where another catalogue has it."""
    fit = re.sub(r"[^a-z0-9]+", "-", stem.lower())[: MAX_NAME - 4].strip("-") or "catalogue"
    numbered = (f"{fit}-{number}" for number in range(2, len(taken) + 3))
    return fit if fit not in taken else next(name for name in numbered if name not in taken)
