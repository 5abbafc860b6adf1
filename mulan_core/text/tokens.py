"""The text tower's tokenizer alone: how many tokens a text has, and which of its words the tokenizer does not know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mulan_core.towers.pretrained import locate


@dataclass(frozen=True)
class Tokens:
    """An open tokenizer."""

    encode: Callable[[Sequence[str]], list[list[int]]]
    """Texts -> the ids of their tokens, without special ones, however long the text is."""
    unknown_id: int | None
    """The id that stands for whatever the tokenizer does not know; None where it knows every byte."""


def open_tokens(pretrained: str) -> Tokens:
    """The tokenizer of text weights, by name or folder.

    Raises:
        UserError: if it cannot be found or reached.
    """
    file = Path(locate(pretrained)) / "tokenizer.json"
    if not file.is_file():
        from mulan_core.towers.warm_start import load_tokenizer

        named = load_tokenizer(pretrained)

        def encode_named(texts: Sequence[str]) -> list[list[int]]:
            return list(named(list(texts), add_special_tokens=False, verbose=False)["input_ids"]) if texts else []

        return Tokens(encode_named, named.unk_token_id)
    # The tokenizer alone: transformers would take longer to import than most catalogues to judge.
    from tokenizers import Tokenizer

    opened = Tokenizer.from_file(str(file))
    opened.no_truncation()
    opened.no_padding()

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [encoded.ids for encoded in opened.encode_batch(list(texts), add_special_tokens=False)]

    return Tokens(encode, next((i for name in ("[UNK]", "<unk>") if (i := opened.token_to_id(name)) is not None), None))
