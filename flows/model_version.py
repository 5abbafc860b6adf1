"""A version of a registered model, as flows and commands see it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class Version:
    """A version of the registered model."""

    number: str
    run_id: str
    """Of the training run that made its weights."""
    source: str
    """Address of its files, as MLflow has it."""
    created_at: str
    """When it was registered, ISO 8601."""
    aliases: tuple[str, ...]
    """In alphabetical order."""
    tags: dict[str, str]
    """By their full names, ``mulan.data_hash`` and the like."""

    @classmethod
    def of(cls, model_version: ModelVersion, aliases: Iterable[str]) -> Version:
        """What MLflow says of a version; its searches leave out the aliases."""
        return cls(
            number=str(model_version.version),
            run_id=str(model_version.run_id),
            source=str(model_version.source),
            created_at=datetime.fromtimestamp(model_version.creation_timestamp / 1000, UTC).isoformat(
                timespec="seconds"
            ),
            aliases=tuple(sorted(aliases)),
            tags=dict(model_version.tags),
        )

    def tag(self, name: str) -> str | None:
        """The tag ``mulan.<name>``; None where there is none."""
        return self.tags.get(f"mulan.{name}")

    @property
    def trained_on(self) -> str | None:
        """The data hash of its training; its own ``data_hash`` is another where it was indexed with later data."""
        return self.tag("trained_on") or self.tag("data_hash")

    def summary(self) -> dict[str, str]:
        """What ``mulan release list`` shows."""
        return {
            "version": self.number,
            "aliases": ", ".join(self.aliases),
            "gate": self.tag("gate") or "",
            "collection": self.tag("collection") or "",
            "data_hash": (self.tag("data_hash") or "")[:8],
            "git_commit": (self.tag("git_commit") or "")[:8],
            "created": self.created_at,
        }
