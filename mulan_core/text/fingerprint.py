"""What decides the verdicts on texts beside the numbers: the rules' own code and a classifier's weights, by hash."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mulan_core.errors import UserError

RULES = ("filters.py", "lexicon.py", "music_score.py")
WEIGHTS = ("config.json", "model.safetensors", "classifier.json", "tokenizer.json")


def fingerprint(classifier: Path | None) -> dict[str, str | None]:
    """Hashes of the rules and of a classifier's folder; equal ones give equal verdicts for equal numbers.

    Raises:
        UserError: if the folder holds no classifier.
    """
    here = Path(__file__).parent
    try:
        weights = _hash(classifier, WEIGHTS) if classifier else None
    except OSError as error:
        raise UserError(
            f"text.lf_classifier: {classifier} holds no text classifier ({Path(str(error.filename)).name} is missing); "
            "make one with `mulan text train`, or set it to null for the rule"
        ) from error
    return {"rules": _hash(here, RULES), "classifier": weights}


def _hash(folder: Path, names: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:12]
