"""A workspace: a folder with ``params.yaml`` and ``dvc.yaml`` whose data lies under its ``.mulan/data``.

The checkout is the demo's workspace. A catalogue of your own gets one under ``<home>/workspaces/``:
made by ``open_workspace``, with the checked manifest inside, so that nobody edits DVC files by hand.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from flows.runtime.catalogue_tables import write_catalogue
from flows.runtime.catalogues import Catalogue, find_catalogue, full_place
from flows.runtime.dvc_repo import init_dvc
from flows.runtime.moved import read_places
from flows.runtime.project import PROJECT
from mulan_core.config import Config, load_config, to_mapping
from mulan_core.data.uris import is_remote
from mulan_core.errors import UserError
from mulan_core.yaml_file import format_yaml, parse_yaml, read_yaml

SET_CATALOGUES = Path(".mulan/data/set_catalogues")
"""Where the catalogues of ``evaluate.sets`` lie in a workspace; dvc.yaml names it."""


@dataclass(frozen=True)
class Workspace:
    """One catalogue, its numbers and its data."""

    folder: Path
    params: Path | None = None
    """Differences from the folder's ``params.yaml``, for a command that writes nothing."""

    @property
    def is_made(self) -> bool:
        """Whether its files are there."""
        return all((self.folder / name).is_file() for name in ("params.yaml", "dvc.yaml"))

    @cached_property
    def config(self) -> Config:
        """The numbers in ``params.yaml``, with the differences."""
        kept = load_config(self.folder / "params.yaml")
        return load_config(self.params, over=kept) if self.params else kept

    @property
    def prepared(self) -> Path:
        """The prepared folder (shards, tables, counts)."""
        return self.folder / ".mulan" / "data" / "prepared"

    @property
    def sets(self) -> Path:
        """The folder of prepared evaluation sets, one below it for each."""
        return self.folder / ".mulan" / "data" / "sets"

    @property
    def is_demo(self) -> bool:
        """Whether its catalogue is the demo corpus."""
        return self.config.catalogue == Config().catalogue

    @property
    def texts(self) -> Path:
        """The folder of judged texts and their report."""
        return self.folder / ".mulan" / "data" / "texts"

    @property
    def data_hash(self) -> str:
        """DVC's hash of the prepared folder, from ``dvc.lock``.

        Raises:
            UserError: if the data was never prepared, or ``dvc.lock`` is damaged.
        """
        if data_hash := self.find_data_hash():
            return data_hash
        raise UserError(f"nothing is prepared in {self.folder}; run `mulan prepare` first")

    def find_data_hash(self) -> str | None:
        """The same; None where nothing was prepared.

        Raises:
            UserError: if ``dvc.lock`` is damaged.
        """
        path = self.folder / "dvc.lock"
        try:
            return hash_in(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path} cannot be read ({getattr(error, 'strerror', None) or error}); put it back as it was (git has "
                "a checkout's), or delete it and run `mulan prepare`, which makes it again"
            ) from error

    def has_had(self, data_hash: str) -> bool:
        """Whether data is prepared here, or was before: DVC keeps what it had."""
        kept = self.folder / ".dvc" / "cache" / "files" / "md5" / data_hash[:2] / f"{data_hash[2:]}.dir"
        return kept.is_file() or self.find_data_hash() == data_hash


def hash_in(lock: bytes) -> str | None:
    """The hash of the prepared folder in the content of a ``dvc.lock``; None where it has no such stage yet.

    Raises:
        ValueError: in a few words, if it is no such file.
    """
    if any(line.startswith((b"<<<<<<<", b">>>>>>>")) for line in lock.splitlines()):
        raise ValueError("it holds merge markers")
    try:
        stages = parse_yaml(lock.decode("utf-8"), "dvc.lock")["stages"]
        if not isinstance(stages, dict) or not stages:
            raise TypeError
        if "prepare" not in stages:
            return None
        data_hash = str(stages["prepare"]["outs"][0]["md5"]).removesuffix(".dir")
    except (UserError, UnicodeDecodeError, KeyError, IndexError, TypeError) as error:
        raise ValueError("it is damaged" if lock.strip() else "it is empty") from error
    if not re.fullmatch(r"[0-9a-f]{32}", data_hash):
        raise ValueError("it is damaged")
    return data_hash


def open_workspace(
    home: Path,
    *,
    manifest: str | Path | None = None,
    playlists: str | Path | None = None,
    params: str | Path | None = None,
    allow_overlap: bool = False,
    size: int | None = None,
    allow_outside: bool = False,
    moved: Mapping[str, str] | None = None,
    demo: bool = False,
) -> Workspace:
    """Find or make the workspace of a catalogue.

    Args:
        home: the folder of local state; workspaces of own catalogues live in it.
        manifest: a table of tracks or a folder of audio, or a URL of one; null takes the working folder as workspace
            (the demo's, in a checkout).
        playlists: a table of playlists, from now on; null takes those that the catalogue has, if it has any.
        params: a file of what differs from the catalogue's numbers, from now on. Those are what its workspace keeps,
            and ``configs/own.yaml`` before there is one.
        allow_overlap: set ``prepare.allow_overlap``, for an own manifest; the workspace keeps that too.
        allow_outside: take local files outside the manifest's folder, now and whenever this workspace is opened.
        moved: folders of other machines and where they lie here, beside those that the workspace keeps.
        size: a demo corpus of this size instead of that in ``params.yaml``, in a workspace of its own.
        demo: outside a checkout make the demo's workspace; without this one that was made before is taken.

    Raises:
        UserError: for a missing or wrong manifest, playlists or configuration.
    """
    check_name(home)
    if manifest is None:
        if playlists or params:
            raise UserError("--playlists and --params go with --manifest; without it the working folder's are used")
        if allow_overlap:
            raise UserError(
                "--allow-overlap goes with --manifest; without it set prepare.allow_overlap: true in params.yaml"
            )
        workspace = _working_folder(home, demo=demo)
        check_name(workspace.folder)
        config = workspace.config  # a wrong key should be said now, not three stages later
        if size is None or size == config.corpus.size:
            return workspace
        return _make(
            home / "workspaces" / f"demo-{size}",
            replace(config, corpus=replace(config.corpus, size=size)),
            stages=read_yaml(workspace.folder / "dvc.yaml"),
        )
    workspace = workspace_of(home, manifest)
    config = numbers_of(workspace, params)
    allow_outside = allow_outside or config.prepare.allow_outside
    allow_overlap = allow_overlap or config.prepare.allow_overlap
    moved = {**config.prepare.moved, **(moved or {})}
    prepare = replace(config.prepare, allow_outside=allow_outside, allow_overlap=allow_overlap, moved=moved)
    config = replace(config, catalogue=".mulan/data/catalogue", prepare=prepare)
    catalogue = workspace.folder / config.catalogue
    write_catalogue(manifest, playlists or find_catalogue(home, workspace.folder).playlists, catalogue, prepare)
    stages = read_yaml(PROJECT / "dvc.yaml")
    del stages["stages"]["corpus"]  # the demo's; all others are the same for every catalogue
    return _make(workspace.folder, config, stages=stages)


def numbers_of(workspace: Workspace, params: str | Path | None) -> Config:
    """The numbers of an own catalogue: what its workspace keeps, else ``configs/own.yaml``, and the differences.

    Args:
        workspace: made or not.
        params: the differences; None for none.

    Raises:
        UserError: naming the file that is wrong.
    """
    kept = workspace.folder / "params.yaml"
    try:
        config = load_config(kept if workspace.is_made else PROJECT / "configs" / "own.yaml")
    except UserError as error:
        raise UserError(f"{error}; correct it there, or delete {kept} to begin with configs/own.yaml again") from error
    return load_config(params, over=config) if params else config


def check_name(folder: Path) -> None:
    """Refuse the few folders in which not all of the tools work, at once rather than midway.

    Raises:
        UserError: naming what its path must not hold.
    """
    path = str(folder)
    if "{" in path or "}" in path:  # DVC takes its folder's path for a format
        raise UserError(f"{folder} has a brace in its path, at which DVC fails; choose another folder (MULAN_HOME)")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in path):
        raise UserError(
            f"{path!r} has in its path what is no text, or cannot be printed; choose another folder (MULAN_HOME)"
        )


def find_workspace(
    home: Path,
    *,
    manifest: str | Path | None = None,
    folder: Path | None = None,
    params: str | Path | None = None,
) -> Workspace:
    """The workspace of a catalogue as it was left, for a command that reads; nothing is written.

    Args:
        home, manifest: as of ``open_workspace``.
        folder: the workspace's own, where it is known.
        params: differences from the numbers that are kept there.

    Raises:
        UserError: if there is none.
    """
    if manifest is None and folder is None and params:
        raise UserError("--params goes with --manifest; without it the working folder's are used")
    if folder is not None:
        workspace = Workspace(folder)
    else:
        workspace = _working_folder(home, demo=False) if manifest is None else workspace_of(home, manifest)
    if not workspace.is_made:
        raise UserError(
            f"nothing was prepared of {manifest} in {home}; run `mulan prepare --manifest {manifest}` first"
        )
    return replace(workspace, params=Path(params) if params else None)


def made_workspace(home: Path, catalogue: Catalogue) -> Workspace | None:
    """The workspace of a catalogue; None where none was made, or the working folder is none."""
    try:
        return find_workspace(home, folder=catalogue.folder(home))
    except UserError:
        return None


def workspace_of(home: Path, manifest: str | Path) -> Workspace:
    """An own catalogue's workspace, made or not: named by where its manifest lies, or lay before the home moved."""
    name = Path(str(manifest).rstrip("/")).stem
    location = full_place(manifest)
    folders = [
        Workspace(home / "workspaces" / f"{name}-{hashlib.sha256(address.encode()).hexdigest()[:8]}")
        for address in (*read_places(home).earlier(location), location)
    ]
    return next((workspace for workspace in folders if workspace.is_made), folders[-1])


def _working_folder(home: Path, *, demo: bool) -> Workspace:
    """The working folder where it is a workspace, as a checkout is; elsewhere the demo's in the home."""
    here, elsewhere = Workspace(Path.cwd()), Workspace(home / "workspaces" / "demo")
    if here.is_made:
        return here
    if demo:
        stages = read_yaml(PROJECT / "dvc.yaml")
        return _make(elsewhere.folder, load_config(PROJECT / "params.yaml"), stages=stages)
    if elsewhere.is_made:
        return elsewhere
    raise UserError(
        f"{here.folder} has no params.yaml and dvc.yaml; give --manifest YOUR_FILE, run `mulan demo` first, or run "
        "in a checkout of MuLan"
    )


def write_set_catalogues(workspace: Workspace) -> None:
    """Write the catalogues of ``evaluate.sets`` to where their stages read them, checked, as an own manifest's is.

    Raises:
        UserError: for a missing or wrong manifest or playlists, naming the set.
    """
    catalogues = workspace.folder / SET_CATALOGUES
    sets = workspace.config.evaluate.sets
    for stale in {path.name for path in catalogues.glob("*") if path.is_dir()} - set(sets):
        shutil.rmtree(catalogues / stale)
    for name, own_set in sets.items():
        try:
            table = own_set.manifest if is_remote(own_set.manifest) else workspace.folder / own_set.manifest
            prepare = replace(workspace.config.prepare, allow_outside=own_set.allow_outside)
            playlists = own_set.playlists and workspace.folder / own_set.playlists
            write_catalogue(table, playlists, catalogues / name, prepare, split="test")
        except UserError as error:
            raise UserError(f"evaluate.sets.{name}: {error}") from error


def _make(folder: Path, config: Config, *, stages: dict[str, Any]) -> Workspace:
    """Write a workspace's files and make it a DVC project; what is there already stays."""
    folder.mkdir(parents=True, exist_ok=True)
    # The stages run in the workspace, the user named files from where they are.
    if config.text.lf_classifier:
        config = replace(config, text=replace(config.text, lf_classifier=_absolute(config.text.lf_classifier)))
    if config.corpus.soundfont:
        config = replace(config, corpus=replace(config.corpus, soundfont=_absolute(config.corpus.soundfont)))
    sets = {
        name: replace(
            own_set, manifest=_absolute(own_set.manifest), playlists=own_set.playlists and _absolute(own_set.playlists)
        )
        for name, own_set in config.evaluate.sets.items()
    }
    config = replace(config, evaluate=replace(config.evaluate, sets=sets))
    _write_if_changed(folder / "params.yaml", format_yaml(to_mapping(config)))
    _write_if_changed(folder / "dvc.yaml", format_yaml(stages))
    init_dvc(folder)
    return Workspace(folder)


def keep_numbers(workspace: Workspace, config: Config) -> None:
    """Have an own catalogue keep other numbers from now on."""
    _write_if_changed(workspace.folder / "params.yaml", format_yaml(to_mapping(config)))


def _write_if_changed(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _absolute(location: str) -> str:
    return location if is_remote(location) else str(Path(location).resolve())
