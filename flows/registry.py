"""MLflow's model registry: versions of one registered model, its aliases ``candidate`` and ``champion``, its files.

A version stands for a release. It carries what it was made of as tags (data hash, git commit, flow run, weights), the
gate's decision with its reasons, and what was built for it. Only a switch (``pipeline/switch.py``) moves ``champion``,
and only to a version that the gate passed, or back.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException

from flows.model_version import Version
from flows.runtime.catalogues import DEMO, MODEL_NAME, Catalogue
from flows.runtime.settings import Settings
from flows.runtime.tracking import NameTakenError, NoRegistryError, reading, tracking
from mulan_core.errors import UserError
from serving.release import Release

CHAMPIONS = "mulan.champions"
"""Tag of the registered model: its champions in order, the last one being the present one."""
MAX_CHAMPIONS = 100
OF_THE_INDEX = ("mulan.collection", "mulan.media_root", "mulan.index")
"""Tags that say what was built for a version, rather than what it is."""


class UnknownVersionError(UserError):
    """No version has that alias or number."""


@dataclass(frozen=True)
class Registry:
    """One registered model in one MLflow."""

    uri: str
    """Of the tracking server or database."""
    cache: Path
    """Folder on this machine for the models that were fetched."""
    name: str = MODEL_NAME
    """Of the registered model."""

    @classmethod
    def of(cls, settings: Settings, catalogue: Catalogue) -> Registry:
        """The registered model of a catalogue, in the MLflow that the settings name."""
        folder = settings.home / "models"
        return cls(
            settings.mlflow_uri, folder if catalogue.model == MODEL_NAME else folder / catalogue.model, catalogue.model
        )

    # Looking up

    def find(self, name: str) -> Version:
        """A version by alias or number.

        Raises:
            UserError: if there is none.
        """
        try:
            with reading(self.uri) as client:
                if name.isdecimal():
                    model_version = client.get_model_version(self.name, name)
                else:
                    model_version = client.get_model_version_by_alias(self.name, name)
        except MlflowException as error:
            raise UnknownVersionError(
                f"{name!r} is no alias or version of the model `{self.name}`; see `mulan release list`, and `mulan "
                "run` or `mulan demo` makes the first"
            ) from error
        return Version.of(model_version, model_version.aliases)

    def get(self, name: str) -> Version | None:
        """A version by alias or number; None where there is none, or no registry yet."""
        try:
            return self.find(name)
        except (UnknownVersionError, NoRegistryError):
            return None

    def versions(self) -> list[Version]:
        """All versions, newest first."""
        try:
            with reading(self.uri) as client:
                aliases = client.get_registered_model(self.name).aliases
                model_versions = client.search_model_versions(f"name = '{self.name}'")
        except (MlflowException, NoRegistryError):
            return []
        newest_first = sorted(model_versions, key=lambda model_version: int(model_version.version), reverse=True)
        return [
            Version.of(
                model_version, [alias for alias, number in aliases.items() if int(number) == int(model_version.version)]
            )
            for model_version in newest_first
        ]

    def summary(self, version: Version) -> dict[str, str | None]:
        """What ``mulan release list`` shows of a version, ``judged_on`` among it; see there."""
        return version.summary() | {"judged_on": self.judged_on(version)}

    def judged_on(self, version: Version) -> str | None:
        """The other catalogue on whose tracks the gate judged these weights; None where that was this one."""
        if version.tag("trained_on") is None:
            return None
        with reading(self.uri) as client:
            same = client.search_model_versions(f"run_id = '{version.run_id}'")
        models = {entry.name for entry in same if "mulan.trained_on" not in entry.tags}
        if self.name in models or not models:
            return None
        return DEMO if MODEL_NAME in models else min(models).removeprefix(f"{MODEL_NAME}-")

    def of_run(self, run_id: str) -> list[Version]:
        """The versions of a training run and its own data, newest first."""
        return [version for version in self.versions() if version.run_id == run_id and not version.tag("trained_on")]

    def trained(self, run_id: str) -> Version:
        """The newest of these.

        Raises:
            UserError: if the run was never registered.
        """
        if own := self.of_run(run_id):
            return own[0]
        raise UserError("the trained model is not registered; run `mulan evaluate` first")

    def champions(self) -> list[str]:
        """Versions that were champion and not rolled back, in that order; the last one is champion now."""
        now = self.get("champion")
        if now is None:
            return []
        with reading(self.uri) as client:
            kept = str(client.get_registered_model(self.name).tags.get(CHAMPIONS, "")).split()
        # Whoever moved the alias by hand, in the MLflow UI, promoted too.
        return kept if kept[-1:] == [now.number] else [*kept, now.number]

    def champion_before(self) -> str:
        """The version that was champion before the present one.

        Raises:
            UserError: if none was.
        """
        champions = self.champions()
        if len(champions) < 2:
            raise UserError("there is no champion before this one to go back to; see `mulan release list`")
        return champions[-2]

    # Releases and their files

    def release(self, name: str = "champion") -> Release:
        """The release of an alias or version, with its model on this machine.

        Raises:
            UserError: if there is no such version, it has no collection, or its model cannot be fetched.
        """
        version = self.find(name)
        parts = {part: version.tag(part) or "" for part in ("collection", "data_hash", "preprocessing_hash")}
        if missing := [part for part, value in parts.items() if not value]:
            raise UserError(
                f"version {version.number} of {self.name} has no {missing[0]}; run `mulan index` for it first"
            )
        return Release(
            model_version=version.number,
            model_path=str(self.fetch(version)),
            created_at=version.created_at,
            **parts,
        )

    def fetch(self, version: Version) -> Path:
        """Bring a version's saved model to this machine once; a download that was cut off is begun again.

        Returns:
            Its folder.

        Raises:
            UserError: if it cannot be fetched.
        """
        folder = self.cache / f"{version.number}-{version.run_id[:12]}"
        if not folder.exists():
            self._download(version, folder)
        try:
            # Read by ourselves: MLflow takes a folder for an address, in which ?, # and % mean something else.
            card = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
            model = folder / card["flavors"]["python_function"]["artifacts"]["model"]["path"]
            if not (model / "config.json").is_file():
                raise FileNotFoundError(model)
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
            raise UserError(
                f"the copy of version {version.number} of {self.name} in {folder} is damaged; delete that folder and "
                "run this again, which fetches it anew"
            ) from error
        return model.resolve()

    def _download(self, version: Version, folder: Path) -> None:
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            download_artifacts(
                artifact_uri=f"models:/{self.name}/{version.number}",
                dst_path=str(partial),
                tracking_uri=self.uri,
                registry_uri=self.uri,
            )
            if not (
                partial / "MLmodel"
            ).is_file():  # of a folder that is gone MLflow fetches nothing, and says so to nobody
                raise FileNotFoundError(f"there is no model at {version.source}")
        except (MlflowException, OSError) as error:
            first_line = str(error).splitlines()[0]
            raise UserError(
                f"cannot fetch version {version.number} of {self.name} from {self.uri}: {first_line}; put its files "
                "back from a copy, or serve another version"
            ) from error
        partial.rename(folder)

    # Changing

    def copy(self, versions: Iterable[Version]) -> list[Version]:
        """Have versions of another registered model here too, in this order, with their aliases.

        What was built for them stays behind: a collection names the version that it was built for. One that is here
        already is left as it is, so that copying goes on where it was cut off.
        """
        here = {
            (version.run_id, version.tag("weights"), version.tag("data_hash")): version for version in self.versions()
        }
        copied = []
        with tracking(self.uri) as client:
            self._make(client)
            for original in versions:
                twin = here.get((original.run_id, original.tag("weights"), original.tag("data_hash")))
                tags = {key: value for key, value in original.tags.items() if key not in OF_THE_INDEX}
                version = twin or Version.of(
                    client.create_model_version(self.name, original.source, original.run_id, tags=tags),
                    original.aliases,
                )
                for alias in original.aliases:
                    client.set_registered_model_alias(self.name, alias, version.number)
                copied.append(version)
        return copied

    def _make(self, client: MlflowClient) -> None:
        if not client.search_registered_models(f"name = '{self.name}'"):
            client.create_registered_model(self.name)

    def rename(self, name: str) -> None:
        """Give the registered model another name, where there is one; nothing else changes.

        Raises:
            NameTakenError: by a model that no catalogue here has; then nothing is renamed.
        """
        moved, has_cache = self.cache.with_name(name), self.cache.name == self.name and self.cache.exists()
        with tracking(self.uri) as client:
            here, there = (client.search_registered_models(f"name = '{model}'") for model in (self.name, name))
            if (here and there) or (has_cache and moved.exists()):
                taken = f"a registered model {name}" if here and there else f"a folder {moved}"
                raise NameTakenError(f"there is {taken} already, of no catalogue of this home; give another name")
            if here:  # one that was cut off goes on
                client.rename_registered_model(self.name, name)
        if has_cache:
            self.cache.rename(moved)

    def remove(self) -> None:
        """Delete the registered model with its versions and aliases; the runs that made them stay."""
        with tracking(self.uri) as client:
            if client.search_registered_models(f"name = '{self.name}'"):
                client.delete_registered_model(self.name)
        if self.cache.name == self.name:
            shutil.rmtree(self.cache, ignore_errors=True)

    def nominate(self, number: str, tags: dict[str, str], *, card: str) -> None:
        """Make a version the candidate.

        Args:
            number: the version's.
            tags: what it was made of, and the gate's word.
            card: the model's card, which the registry shows as the version's description.
        """
        self.tag(number, tags)
        with tracking(self.uri) as client:
            client.update_model_version(self.name, number, description=card)
            client.set_registered_model_alias(self.name, "candidate", number)

    def tag(self, number: str, tags: dict[str, str]) -> None:
        """Add tags to a version, such as the collection that was built for it."""
        with tracking(self.uri) as client:
            for name, value in tags.items():
                client.set_model_version_tag(self.name, number, name, value)

    def version_for_data(self, name: str, data_hash: str, *, origin: Registry | None = None) -> Version:
        """The version of a model for other data than it was trained on; registered if there is none yet.

        The same weights over new data are a new version. The gate's word is about the weights, and is carried along.

        Args:
            name: an alias or version.
            data_hash: DVC's hash of the prepared data.
            origin: the registered model of another catalogue, where it is one of that.

        Raises:
            UserError: if no version has that name, or it was registered by hand.
        """
        source = origin or self
        version = source.find(name)
        if version.trained_on is None:
            raise UserError(f"version {version.number} of {source.name} does not say what data it was trained on")
        for entry in (*([version] if source == self else []), *reversed(self.versions())):
            if entry.tag("weights") == version.tag("weights") and entry.tag("data_hash") == data_hash:
                return entry
        tags = {key: value for key, value in version.tags.items() if key not in OF_THE_INDEX}
        tags |= {"mulan.trained_on": version.trained_on, "mulan.data_hash": data_hash}
        with tracking(self.uri) as client:
            self._make(client)
            return Version.of(client.create_model_version(self.name, version.source, version.run_id, tags=tags), ())

    def check_gate(self, name: str) -> None:
        """Refuse a version that the gate has not passed. There is no way round the gate.

        Raises:
            UserError: if it has not.
        """
        if self.find(name).tag("gate") != "passed":
            raise UserError(f"version {name} of {self.name} was not passed by the gate; it stays candidate")

    def champions_with(self, number: str) -> list[str]:
        """What ``champions`` says once a version is promoted.

        Raises:
            UserError: if the gate has not passed it.
        """
        self.check_gate(number)
        champions = self.champions()
        return champions if champions[-1:] == [number] else [*champions, number]

    def name_champions(self, champions: list[str]) -> None:
        """Make the last of these the champion, and remember those before it; none takes the alias away.

        ``pipeline/switch.py`` alone calls it, so that endpoint and index go along.
        """
        with tracking(self.uri) as client:
            if champions:
                client.set_registered_model_alias(self.name, "champion", champions[-1])
            else:
                client.delete_registered_model_alias(self.name, "champion")
            client.set_registered_model_tag(self.name, CHAMPIONS, " ".join(champions[-MAX_CHAMPIONS:]))
