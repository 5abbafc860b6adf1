"""YAML 1.2 as everything of ours reads and writes it.

PyYAML's own schema is YAML 1.1, where ``off`` is false, ``010`` is 8 and ``1e-4`` is text. DVC, which reads the same
``params.yaml``, reads 1.2. Here the plain words of the 1.2 core schema mean what it says, and what is written is quoted
wherever a reader of any kind would take a text for something else.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.constructor import ConstructorError

from mulan_core.errors import UserError

_CORE = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    "merge": (r"<<", ["<"]),
}
"""Type -> its plain words by the core schema (YAML 1.2.2, section 10.3.2), and their first letters. Merging is not
in it; both PyYAML and the reader of DVC do it, so files have it."""
_NUMBER_TO_SOME = re.compile(r"[-+]?[0-9_]*\.?[0-9_]*([eE][-+]?[0-9]+)?|[-+]?0[box]_?[0-9a-fA-F_]+|=")
"""Plain words that are a number, or an error, to one reader or another: YAML 1.1's and those of ruamel.yaml."""
_ODD_BREAK = re.compile("[\x85\u2028\u2029]")
"""They end a line to PyYAML and to DVC, and by YAML 1.2 they do not: behind one in a comment a key would count."""
MAX_LEVELS = 100
"""Levels of nesting; PyYAML uses Python's stack."""


class _Loader(yaml.SafeLoader):
    """The core schema, and no other types."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]  # PyYAML's own is one too
    yaml_constructors: ClassVar[dict[Any, Any]] = {}
    _level = 0

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._open: list[str | None] = []

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._level += 1
        if self._level > MAX_LEVELS:
            mark = self.peek_event().start_mark
            raise ConstructorError(None, None, f"it nests deeper than {MAX_LEVELS} levels", mark)
        if self.check_event(yaml.AliasEvent) and (alias := self.peek_event()).anchor in self._open:
            raise ConstructorError(None, None, f"*{alias.anchor} stands within itself", alias.start_mark)
        node = super().compose_node(parent, index)
        self._level -= 1
        return node

    def compose_sequence_node(self, anchor: Any) -> Any:
        self._open.append(anchor)
        node = super().compose_sequence_node(anchor)
        self._open.pop()
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        self._open.append(anchor)
        node = super().compose_mapping_node(anchor)
        self._open.pop()
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise ConstructorError(None, None, f"the key {key.value!r} is there twice", key.start_mark)
                seen.add((key.tag, key.value))
        return node

    def construct_core(self, node: Any) -> Any:
        kind, word = node.tag.rpartition(":")[2], self.construct_scalar(node)
        if kind == "str":
            if any("\ud800" <= letter <= "\udfff" for letter in word):
                raise ConstructorError(None, None, "it holds half a character (a lone surrogate)", node.start_mark)
            return word
        if not re.fullmatch(_CORE[kind][0], word):
            raise ConstructorError(None, None, f"{word!r} is no {kind}", node.start_mark)
        if kind == "null":
            return None
        if kind == "bool":
            return word.lower() == "true"
        if kind == "int":
            if len(word) > 4000:  # Python refuses to convert more digits
                raise ConstructorError(None, None, "a number has more than 4,000 digits", node.start_mark)
            return int(word, {"0o": 8, "0x": 16}.get(word[:2], 10))
        return float(re.sub(r"\.(?=[iInN])", "", word))


for _kind, (_words, _first) in _CORE.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"^(?:{_words})\Z"), _first)
for _kind in ("null", "bool", "int", "float", "str"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_core)
for _tag in ("tag:yaml.org,2002:seq", "tag:yaml.org,2002:map", None):
    _Loader.yaml_constructors[_tag] = yaml.SafeLoader.yaml_constructors[_tag]


class _Dumper(yaml.SafeDumper):
    """PyYAML's, which quotes what is special in YAML 1.1; here also what is in 1.2."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.Node:
        """In double quotes, where a line break that only some readers know is spelled out."""
        style = '"' if _ODD_BREAK.search(text) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


for _kind in ("null", "bool", "int", "float"):
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"^(?:{_CORE[_kind][0]})\Z"), None)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(rf"^(?:{_NUMBER_TO_SOME.pattern})\Z"), None)


_Dumper.add_representer(str, _Dumper.represent_text)


def read_yaml(path: str | Path, what: str = "") -> Any:
    """The values in a file; None where it is empty.

    Args:
        path: the file.
        what: it is to whoever reads the error, such as ``the configuration``.

    Raises:
        UserError: if it is missing, is not UTF-8 or not YAML, has two documents or a key twice: with the line.
    """
    named = f"{what} {path}".strip()
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except OSError as error:
        raise UserError(f"cannot read {named}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except ValueError as error:  # a path with a zero byte
        raise UserError(f"cannot read {named!r}: {error}") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, path: str) -> Any:
    """The values in a text, such as of a file that is read already; see ``read_yaml``."""
    if odd := _ODD_BREAK.search(text):
        line = text.count("\n", 0, odd.start()) + 1
        raise UserError(
            f"{path} is not valid YAML: line {line}: it holds U+{ord(odd[0]):04X}, where a line ends to some "
            "readers and not to others; leave that out"
        )
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise UserError(f"{path} is not valid YAML: {where}{_problem(error)}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        letter = f"U+{error.character:04X}" if isinstance(error.character, int) else repr(error.character)
        raise UserError(f"{path} is not valid YAML: line {line}: it holds {letter}; leave that out") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error


def format_yaml(values: Any) -> str:
    """Plain values as YAML, in their order, so that readers of 1.1 and of 1.2 read them alike."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _problem(error: yaml.MarkedYAMLError) -> str:
    problem = " ".join(str(error.problem or error.context).split())
    if "'\\t'" in problem:
        return "a tab stands where YAML wants blanks"
    if "cannot start any token" in problem:
        return f"{problem}; put the text in quotes"
    if "but found another document" in problem:
        return "a second document starts; keep one"
    if "could not determine a constructor for the tag" in problem:
        return f"the tag {problem.rpartition('tag ')[2]} is not allowed"
    return problem
