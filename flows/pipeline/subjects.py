"""Which model a command means: a version of the registry by alias or number, or any folder, name or file of vectors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from flows.registry import Registry
from mulan_core.errors import UserError
from mulan_core.evaluation.encoder import Encoder
from mulan_core.evaluation.encoders import check_model, kind_of, open_encoder


@dataclass(frozen=True)
class Subject:
    """A model under measurement."""

    name: str
    """As the user named it."""
    path: str
    """What ``open_encoder`` opens."""
    pooling: str | None = None
    """See ``open_encoder``."""
    batch_size: int = 32
    """Windows or texts encoded at once."""
    run_id: str | None = None
    """Its training run, where results are logged; None for a model that is in no registry."""
    version: str | None = None
    """Its version, if it is registered."""
    data_hash: str | None = None
    """The data it was trained on, where that is known."""

    @cached_property
    def encoder(self) -> Encoder:
        """The model, opened in this process."""
        return open_encoder(self.path, pooling=self.pooling, batch_size=self.batch_size)

    @property
    def has_audio(self) -> bool:
        """Whether it embeds tracks; only a table of vectors has to be opened for that."""
        kind = kind_of(self.path)
        return self.encoder.has_audio if kind == "vectors" else kind != "text"

    @property
    def names(self) -> dict[str, str]:
        """Fields that say which model it is."""
        fields = {"name": self.name, "version": self.version, "run_id": self.run_id, "trained_on": self.data_hash}
        return {key: value for key, value in fields.items() if value is not None}

    def describe(self) -> dict[str, Any]:
        """Those fields, and what the model is."""
        return self.encoder.describe() | self.names


def find_subject(name: str, registry: Registry, *, pooling: str | None = None, batch_size: int = 32) -> Subject:
    """Find a model.

    Args:
        name: an alias (``champion``, ``candidate``) or number of the registered model; else what ``open_encoder``
            opens: a folder, a name on the hub, a file of vectors. A path that exists is taken as one.
        registry: of that model.
        pooling: how hidden states of a plain text or audio model become one vector.
        batch_size: windows or texts encoded at once.

    Raises:
        UserError: if it is neither, or its files cannot be had.
    """
    if not Path(name).exists() and (version := registry.get(name)):
        folder = registry.fetch(version)
        check_model(folder, pooling=pooling)
        return Subject(
            name=f"{registry.name} version {version.number}",
            path=str(folder),
            pooling=pooling,
            batch_size=batch_size,
            run_id=version.run_id,
            version=version.number,
            data_hash=version.trained_on,
        )
    try:
        kind_of(name)
    except UserError as error:
        raise UserError(
            f"{name!r} is no alias or version of the registered model (`mulan release list`), and no model: {error}"
        ) from error
    check_model(name, pooling=pooling)
    # Actors and DVC run in other folders.
    path = str(Path(name).resolve()) if Path(name).exists() else name
    return Subject(name=name, path=path, pooling=pooling, batch_size=batch_size)
