"""A release: model version, preprocessing and index collection, switched as one unit and named in every answer."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mulan_core.errors import UserError
from serving.store import TrackStore

_PREPROCESSING_FILES = ("processor_config.json", "tokenizer.json", "vocab.txt")


@dataclass(frozen=True)
class Release:
    """What is served."""

    model_version: str
    """Version of the registered model in MLflow."""
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
    info = store.collections.describe(release.collection)
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
