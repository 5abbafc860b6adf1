"""Where a folder of state is, and where it was before it was moved or copied: which of its files is which."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Places:
    """Where a home is, and where it was before, the earliest first."""

    home: Path
    before: tuple[str, ...] = ()

    def here(self, path: str) -> str:
        """Where a file is now that lay in the home; other paths as they are."""
        for folder in self.before:
            if path.startswith(f"{folder}/"):
                return str(self.home / path[len(folder) + 1 :])
        return path

    def earlier(self, path: str) -> list[str]:
        """Where a file of the home was before, the earliest first; nothing for one that lies elsewhere."""
        own = f"{self.home}/"
        return [f"{folder}/{path[len(own) :]}" for folder in self.before] if path.startswith(own) else []
