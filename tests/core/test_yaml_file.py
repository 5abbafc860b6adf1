"""YAML as we read and write it: the 1.2 core schema, and the same to DVC, to PyYAML and to us."""

from __future__ import annotations

import datetime
import math
import re

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from mulan_core.config import Config, from_mapping, load_config
from mulan_core.errors import UserError
from mulan_core.yaml_file import format_yaml, parse_yaml, read_yaml

CORE = {
    **{"1e-4": 1e-4, "1E-4": 1e-4, "1e4": 1e4, "+1e4": 1e4, "1.e3": 1e3, ".5": 0.5, "-.5": -0.5, "5.": 5.0},
    **{"010": 10, "08": 8, "0o17": 15, "0x1F": 31, "+1": 1, "-0": 0, "1.5": 1.5, "1.0e-5": 1e-5},
    **{"off": "off", "on": "on", "yes": "yes", "No": "No", "y": "y", "true": True, "True": True, "TRUE": True},
    **{"tRUE": "tRUE", "false": False, "~": None, "null": None, "Null": None, "NULL": None, "": None, "nuLL": "nuLL"},
    **{".inf": math.inf, "-.INF": -math.inf, "+.Inf": math.inf, "inf": "inf", "nan": "nan", "+.nan": "+.nan"},
    **{"1:30": "1:30", "12:00:00": "12:00:00", "1,000": "1,000", "0O17": "0O17", "0b": "0b", "e5": "e5", "=": "="},
}
"""Plain words, and what the core schema has them mean."""
TO_DVC_A_NUMBER = [
    *("1_000", "1_000.5", "1__0", "1_", "0_", "-0x1F", "0x1f_2", "0b101", "-0b1"),
    *("+0o17", "0o_7", "1_0e3", "1.5_0", "1._5", "._5", ".5_0"),
]
"""Texts by the core schema that ruamel.yaml takes for numbers."""


def to_dvc(text):
    from dvc.utils.serialize import parse_yaml as of_dvc

    return of_dvc(text, "params.yaml")


@pytest.mark.parametrize(("word", "meaning"), CORE.items())
def test_a_plain_word_means_what_the_core_schema_says_to_us_and_to_dvc(word, meaning):
    text = f"a: {word}\nb:\n- {word}\n"
    assert parse_yaml(text, "f") == {"a": meaning, "b": [meaning]}
    assert type(parse_yaml(text, "f")["a"]) is type(meaning)
    if word != "=":  # which ruamel.yaml refuses, as a type of YAML 1.1
        assert repr(to_dvc(text)["a"]) == repr(meaning)


@pytest.mark.parametrize("word", [".nan", ".NaN", ".NAN"])
def test_not_a_number(word):
    assert math.isnan(parse_yaml(f"a: {word}", "f")["a"])
    assert math.isnan(to_dvc(f"a: {word}")["a"])


@pytest.mark.parametrize("word", TO_DVC_A_NUMBER)
def test_no_number_is_read_where_dvc_reads_another(word):
    """By the core schema they are texts, so no field of numbers takes them, and the sentence has the right spelling."""
    number = to_dvc(f"a: {word}")["a"]
    assert isinstance(number, (int, float))
    assert parse_yaml(f"a: {word}", "f") == {"a": word}
    with pytest.raises(UserError, match=r"gate\.margin is '.*'; it must be a number") as error:
        from_mapping(Config, {"gate": {"margin": parse_yaml(word, "f")}})
    if meant := re.search(r"write (\S+)$", str(error.value)):
        assert float(meant[1]) == number


def test_dates_are_texts_by_the_core_schema():
    assert parse_yaml("a: 2026-11-30", "f") == {"a": "2026-11-30"}
    assert to_dvc("a: 2026-11-30") == {"a": datetime.date(2026, 11, 30)}
    assert to_dvc(format_yaml({"a": "2026-11-30"})) == {"a": "2026-11-30"}  # what we write is quoted


TEXTS = st.one_of(
    st.sampled_from(
        [
            *CORE,
            *TO_DVC_A_NUMBER,
            "2026-11-30",
            "---",
            "...",
            "a: b",
            "- a",
            "#",
            " x",
            "x ",
            "\n",
            "{}",
            "!x",
            "a\u2028b",
            "\x85",
        ]
    ),
    st.from_regex(r"[-+.0-9xobeE_:]{1,8}", fullmatch=True),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12),
)
VALUES = st.one_of(TEXTS, st.booleans(), st.none(), st.integers(), st.floats(allow_nan=False))


@given(st.dictionaries(TEXTS, st.one_of(VALUES, st.lists(VALUES, max_size=3)), max_size=4))
@example({"a": 1e-05, "b": "1e-05", "c": "off", "d": 1e22})
@example({"a": "line\nline\n", "b": "\u2028", "c": "\N{GRINNING FACE}"})
def test_what_is_written_means_the_same_to_every_reader(values):
    text = format_yaml(values)
    for reader in (lambda text: parse_yaml(text, "f"), to_dvc, yaml.safe_load):
        assert repr(reader(text) or {}) == repr(values)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' is there twice"),
        ("x: {a: 1, a: 1}\n", "line 1: the key 'a' is there twice"),
        ("a: 1\n---\nb: 2\n", "line 2: a second document starts; keep one"),
        ("a:\n\tb: 1\n", "line 2: a tab stands where YAML wants blanks"),
        ("a: [1,\n", "line 2: "),
        ("a: {} music\n", "line 1: "),
        ("a: @x\n", "put the text in quotes"),
        ("a: \x07\n", "line 1: it holds U+0007; leave that out"),
        ('a: "\\ud800"\n', "line 1: it holds half a character"),
        ("a: !!python/object:os.system {}\n", "is not allowed"),
        ("a: !!timestamp x\n", "is not allowed"),
        ("a: !!int abc\n", "line 1: 'abc' is no int"),
        ("a: *x\n", "undefined alias"),
        (f"a: {'9' * 5000}\n", "more than 4,000 digits"),
        ("[" * 5000, "nests deeper than 100 levels"),
        ("a: " + "{a: " * 5000, "nests deeper than 100 levels"),
        ("? [1]\n: 2\n", "line 1: found unhashable key"),
        ("<<: 3\n", "line 1: expected a mapping"),
        ("%YAML 3.0\n---\na: 1\n", "line 1: "),
        ("a: &s {<<: *s}\n", "line 1: *s stands within itself"),
        ("a: &a {<<: [*a, *a], b: 1}\n", "line 1: *a stands within itself"),
        ("train: &t\n  steps: *t\n", "line 2: *t stands within itself"),
        ("a: &a [1, {b: *a}]\n", "line 1: *a stands within itself"),
        ("? &a [*a]\n: 1\n", "line 1: *a stands within itself"),
        ("a: 1\nb: x\u2028y\n", "line 2: it holds U+2028, where a line ends to some readers"),
        ("a: 1 # no\u2029b: 2\n", "line 1: it holds U+2029"),
        ("a:\x85  b: 1\n", "line 1: it holds U+0085"),
    ],
)
def test_what_is_no_yaml_is_one_sentence_with_the_line(tmp_path, text, sentence):
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_config(path)
    assert str(error.value).startswith(f"{path} is not valid YAML: ")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_files_as_editors_save_them(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes("\ufefftrain:\r\n  audio_lr: 1e-4\r\nserve: {query_log: off}\r\n".encode())
    config = load_config(path)
    assert (config.train.audio_lr, config.serve.query_log) == (1e-4, "off")
    for empty in ("", "# a comment\n", "---\n", "~\n"):
        path.write_text(empty)
        assert load_config(path) == Config()
    for wrong, shown in (("- 1\n", "[1]"), ("off\n", "'off'"), ("[]\n", "[]"), ("0\n", "0"), ("false\n", "false")):
        path.write_text(wrong)
        with pytest.raises(UserError, match=re.escape(f"{path}: the file is {shown}; it must be keys and values")):
            load_config(path)
    path.write_bytes("train: {steps: 5}".encode("utf-16"))
    with pytest.raises(UserError, match="is not UTF-8 text"):
        load_config(path)
    for no_file in (tmp_path, "p\0"):
        with pytest.raises(UserError, match=r"cannot read '?the configuration"):
            load_config(no_file)


def test_anchors_and_merging_are_dvcs():
    text = "base: &base {x: 1, y: 2}\nmore: {<<: *base, y: 3}\nlist: [*base]\n"
    text += "deep: {a: &a {<<: *base, x: 5}}\nb: {<<: *a}\n"
    assert parse_yaml(text, "f") == to_dvc(text)
    assert parse_yaml(text, "f")["b"] == {"x": 5, "y": 2}


def test_what_dvc_writes_is_read(tmp_path):
    from dvc.utils.serialize import dump_yaml

    values = {"outs": [{"md5": "123e4567", "path": "off", "size": 10, "hash": "0o17", "date": "2026-11-30"}]}
    dump_yaml(tmp_path / "dvc.lock", values)
    assert read_yaml(tmp_path / "dvc.lock") == values
