"""A release: model version, preprocessing and index collection, switched as one unit and named in every answer."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from mulan_core.errors import UserError
from serving.store import TrackStore

MODEL_NAME = "mulan"
"""The registered model in MLflow."""

_PREPROCESSING_FILES = ("processor_config.json", "tokenizer.json", "vocab.txt")


@dataclass(frozen=True)
class Release:
    """What is served."""

    model_version: str
    """Version of the registered model ``mulan``."""
    preprocessing_hash: str
    """Identity of everything between the user's audio or text and the towers; see ``preprocessing_hash``."""
    collection: str
    """The Milvus collection that this model's vectors are in."""
    data_hash: str
    """DVC's hash of the prepared data behind the collection."""
    model_path: str
    """Folder of the saved model on this machine."""
    created_at: str
    """When the model version was registered, ISO 8601."""

    def to_dict(self) -> dict[str, str]:
        """Plain values, fit for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Release:
        """The inverse of ``to_dict``."""
        return cls(**values)


def preprocessing_hash(model: str | Path) -> str:
    """Identity of a saved model's preprocessing: front-end numbers, processor and vocabulary; 16 hex digits.

    Raises:
        UserError: if the folder is not a saved model.
    """
    model = Path(model)
    digest = hashlib.sha256()
    try:
        settings = json.loads((model / "config.json").read_text(encoding="utf-8"))["settings"]
        digest.update(json.dumps(settings["frontend"], sort_keys=True).encode())
        digest.update((model / _PREPROCESSING_FILES[0]).read_bytes())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{model} is not a saved MuLan model ({error})") from error
    for name in _PREPROCESSING_FILES[1:]:
        if (model / name).is_file():
            digest.update((model / name).read_bytes())
    return digest.hexdigest()[:16]


def check_release(release: Release, store: TrackStore, model: str | Path | None = None) -> None:
    """Refuse a release whose parts do not belong together.

    Args:
        release: what is to be served.
        store: where its collection is.
        model: folder of the saved model; by default the release's.

    Raises:
        UserError: naming everything that disagrees.
    """
    model = Path(model or release.model_path)
    here = preprocessing_hash(model)
    settings = json.loads((model / "config.json").read_text(encoding="utf-8"))["settings"]
    info = store.describe(release.collection)
    made_by = {name: info.properties.get(name) for name in ("model_version", "preprocessing_hash", "data_hash")}
    pairs = [
        ("dimension", "the model", settings["embedding_dim"], "the collection", info.dim),
        ("preprocessing hash", "the model", here, "the release", release.preprocessing_hash),
        (
            "preprocessing hash",
            "the release",
            release.preprocessing_hash,
            "the collection",
            made_by["preprocessing_hash"],
        ),
        ("model version", "the release", release.model_version, "the collection", made_by["model_version"]),
        ("data hash", "the release", release.data_hash, "the collection", made_by["data_hash"]),
    ]
    wrong = [f"{what} is {a} in {at_a} and {b} in {at_b}" for what, at_a, a, at_b, b in pairs if a != b]
    if wrong:
        raise UserError(
            f"release {release.model_version} with collection {release.collection} does not fit together: "
            f"{'; '.join(wrong)}; build the index anew with `mulan index`"
        )


def resolve_release(alias: str = "champion", *, mlflow_uri: str, cache: str | Path) -> Release:
    """Find a release in the MLflow registry and bring its model to this machine.

    Args:
        alias: ``champion``, ``candidate`` or a version's number.
        mlflow_uri: tracking server or database.
        cache: folder for models; a model that is there already is not fetched again.

    Raises:
        UserError: if there is no such version, it has no collection, or its model cannot be fetched.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri=mlflow_uri)
    try:
        if alias.isdigit():
            version = client.get_model_version(MODEL_NAME, alias)
        else:
            version = client.get_model_version_by_alias(MODEL_NAME, alias)
    except MlflowException as error:
        raise UserError(
            f"the registry at {mlflow_uri} has no {alias} of {MODEL_NAME}; run `mulan run` or `mulan demo` first"
        ) from error
    tags = {name: version.tags.get(f"mulan.{name}") for name in ("collection", "data_hash", "preprocessing_hash")}
    missing = [name for name, value in tags.items() if not value]
    if missing:
        raise UserError(
            f"version {version.version} of {MODEL_NAME} has no {missing[0]}; run `mulan index` for it first"
        )
    created = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
    return Release(
        model_version=str(version.version),
        preprocessing_hash=str(tags["preprocessing_hash"]),
        collection=str(tags["collection"]),
        data_hash=str(tags["data_hash"]),
        model_path=str(fetch_model(str(version.version), str(version.run_id), mlflow_uri, Path(cache))),
        created_at=created.isoformat(timespec="seconds"),
    )


def fetch_version(version: str, *, mlflow_uri: str, cache: str | Path) -> Path:
    """Bring a version's saved model to this machine; see ``fetch_model``."""
    from mlflow import MlflowClient

    run_id = MlflowClient(tracking_uri=mlflow_uri).get_model_version(MODEL_NAME, version).run_id
    return fetch_model(version, str(run_id), mlflow_uri, Path(cache))


def fetch_model(version: str, run_id: str, mlflow_uri: str, cache: Path) -> Path:
    """Download a version's saved model once; a download that was cut off is begun again.

    Raises:
        UserError: if it cannot be fetched.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    folder = cache / f"{version}-{run_id[:12]}"
    if not folder.exists():
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            download_artifacts(
                artifact_uri=f"models:/{MODEL_NAME}/{version}",
                dst_path=str(partial),
                tracking_uri=mlflow_uri,
                registry_uri=mlflow_uri,
            )
        except (MlflowException, OSError) as error:
            first_line = str(error).splitlines()[0]
            raise UserError(
                f"cannot fetch version {version} of {MODEL_NAME} from {mlflow_uri}: {first_line}; put its files back "
                "from a copy, or serve another version"
            ) from error
        partial.rename(folder)
    try:
        # Read by ourselves: MLflow takes a folder for an address, in which ?, # and % mean something else.
        card = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
        model = folder / card["flavors"]["python_function"]["artifacts"]["model"]["path"]
        if not (model / "config.json").is_file():
            raise FileNotFoundError(model)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise UserError(
            f"the copy of version {version} of {MODEL_NAME} in {folder} is damaged; delete that folder and run this "
            "again, which fetches it anew"
        ) from error
    return model.resolve()
