"""Every field of every configuration has its range, holds it wherever the value comes from, and says so by its path."""

from __future__ import annotations

import dataclasses
import math
import pickle
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import numpy as np
import pytest
from config_fixtures import edges

import mulan_core.config
from mulan_core.config import Config, ServeConfig, SetConfig, TrainConfig, TuneRange, from_mapping, to_mapping
from mulan_core.errors import UserError
from mulan_core.fields import Section, hints_of
from mulan_core.ranges import FieldError, Range, describe, fit, kind_of, rules_of
from mulan_core.yaml_file import parse_yaml

SECTIONS = [kind for kind in vars(mulan_core.config).values() if isinstance(kind, type) and issubclass(kind, Section)]
SECTIONS = [kind for kind in SECTIONS if kind is not Section]
FIELDS = [(kind, name) for kind in SECTIONS for name in hints_of(kind)]
NUMBERS = [(kind, name) for kind, name in FIELDS if kind_of(hints_of(kind)[name]) in (int, float)]
SAMPLE = {
    "evaluate.sets.NAME": lambda value: {"evaluate": {"sets": {"mine": {"manifest": "a.csv"} | value}}},
    "ablate.rows.NAME": lambda value: {"ablate": {"rows": {"mine": value}}},
    "tune.space.KEY": lambda value: {"tune": {"space": {"train.weight_decay": {"low": 0, "high": 1} | value}}},
}
"""Where sections stand whose names the file gives."""
NEEDED: dict[type, dict[str, Any]] = {SetConfig: {"manifest": "a.csv"}}


def test_the_sections_are_all_there():
    places = [kind.at for kind in SECTIONS]
    assert len(set(places)) == len(places) >= 17
    assert {"", "train", "model.frontend", "serve", *SAMPLE} <= set(places)


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=lambda v: getattr(v, "__name__", v))
def test_a_field_has_its_range(kind, name):
    """A new number, text, list or mapping without a rule fails here; Anything("a reason") is a rule too."""
    _has_rules(hints_of(kind)[name])


def _has_rules(hint: Any) -> None:
    kind, origin = kind_of(hint), get_origin(kind_of(hint))
    if kind is bool or origin is Literal or dataclasses.is_dataclass(kind):
        return
    assert rules_of(hint), f"{hint} has no rule; see mulan_core/ranges.py"
    if kind in (int, float):
        (bounds,) = rules_of(hint)
        assert isinstance(bounds, Range)
        assert (bounds.ge, bounds.gt) != (None, None) != (bounds.le, bounds.lt), f"{hint} is open at an end"
    for of in get_args(kind) if origin is Mapping else get_args(kind)[:1] if origin is tuple else ():
        _has_rules(of)


def test_a_field_without_a_range_is_found():
    with pytest.raises(AssertionError, match="has no rule"):
        _has_rules(float)
    with pytest.raises(AssertionError, match="has no rule"):
        _has_rules(tuple[int, ...])
    with pytest.raises(AssertionError, match="open at an end"):
        _has_rules(Annotated[int, Range(ge=1)])


def in_file(kind: type[Section], name: str, value: Any) -> dict[str, Any]:
    """The plain values of a file that sets one field."""
    if kind.at in SAMPLE:
        return SAMPLE[kind.at]({name: value})
    values: dict[str, Any] = {name: value}
    for part in reversed(kind.at.split(".") if kind.at else []):
        values = {part: values}
    return values


def refused(make: Any) -> str:
    with pytest.raises(UserError) as error:
        make()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)  # Ray sends it
    return str(error.value)


@pytest.mark.parametrize(("kind", "name"), NUMBERS, ids=lambda v: getattr(v, "__name__", v))
def test_a_number_is_held_to_its_range(kind, name):
    hint = hints_of(kind)[name]
    (bounds,) = rules_of(hint)
    low = bounds.ge - 1 if bounds.ge is not None else bounds.gt
    high = bounds.le * 2 + 1 if bounds.le is not None else bounds.lt
    wrong = [math.nan, math.inf, -math.inf, low, high, 10**400, -(10**400), True, "many", "", [1], {"a": 1}, "1e5"]
    if kind_of(hint) is int:
        wrong += [1.5, float(bounds.ge), "7"]
    if fit(hint, edges(hint)[0], name) is None or " or null" not in describe(hint):
        wrong.append(None)
    path = f"{kind.at}.{name}".lstrip(".")
    for value in wrong:
        sentence = refused(lambda value=value: kind(**NEEDED.get(kind, {}) | {name: value}))
        assert sentence.startswith(f"{path} is "), sentence
        assert describe(hint) in sentence
        read = refused(lambda value=value: from_mapping(Config, in_file(kind, name, value)))
        path_read = path.replace("NAME", "mine").replace("KEY", "train.weight_decay")
        assert read == sentence.replace(path, path_read, 1)
    for value in edges(hint):
        assert fit(hint, value, name) == value


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=lambda v: getattr(v, "__name__", v))
def test_what_is_of_no_type_is_refused(kind, name):
    hint = hints_of(kind)[name]
    for value in (object(), {1, 2}, b"bytes", 1j, "\x1b[31m", [["nested"]], {"unknown-key": object()}):
        if kind_of(hint) is not str or not isinstance(value, str):
            sentence = refused(lambda value=value: kind(**NEEDED.get(kind, {}) | {name: value}))
            assert f"{kind.at}.{name}".lstrip(".") in sentence


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"train": {"audio_lr": -1}}, "train.audio_lr is -1; it must be a number above 0 and at most 1"),
        ({"train": {"audio_lr": "0x1"}}, "above 0 and at most 1; write 1"),
        (
            {"train": {"steps": "1_000"}},
            "train.steps is '1_000'; it must be a whole number from 1 to 1000000000; write 1000",
        ),
        ({"train": {"steps": 1000.0}}, "is 1000.0; it must be a whole number from 1 to 1000000000; write 1000"),
        ({"train": {"audio_lr": "1e-4"}}, "write 1e-4 without quotes"),
        ({"train": {"steps": "0b101"}}, "write 5"),
        ({"train": {"steps": "1:30"}}, "write 90"),
        ({"text": {"min_readable": "0,5"}}, "; a number has no comma: write 0.5"),
        ({"train": {"audio_lr": "0,002"}}, "; a number has no comma: write 0.002"),
        ({"train": {"audio_lr": "1,000"}}, "; a number has no comma: write 1.000"),
        ({"train": {"steps": "1,000,000"}}, "; a number has no comma: write 1000000"),
        ({"train": {"steps": "2,5"}}, "; a number has no comma"),
        ({"text": {"min_readable": "50%"}}, "write 0.5"),
        ({"train": {"use_gpu": "yes"}}, "train.use_gpu is 'yes'; it must be true or false; write true"),
        ({"train": {"use_gpu": 1}}, "train.use_gpu is 1; it must be true or false; write true"),
        (
            {"serve": {"query_log": False}},
            "serve.query_log is false; it must be one of off, hashed, full; write 'off' in",
        ),
        ({"catalogue": 5}, "catalogue is 5; it must be text that is not empty; write '5' in quotes"),
        ({"catalogue": " "}, "catalogue is ' '; it must be text that is not empty"),
        ({"about": "a\x1b[31mred"}, "about holds the control character '\\x1b'; leave it out"),
        ({"about": "\ud800"}, "about holds the control character '\\ud800'"),
        (
            {"model": {"audio": {"depths": 3}}},
            "it must be a list of 1 to 16, each a whole number from 1 to 200; write [3]",
        ),
        ({"model": {"audio": {"depths": [1, 0]}}}, "model.audio.depths[1] is 0; it must be a whole number from 1"),
        (
            {"gate": {"floors": {1: 0.5}}},
            "gate.floors has the key 1; it must be text that is not empty; write '1' in quotes",
        ),
        ({"gate": {"floors": {"a/b": math.nan}}}, "gate.floors.a/b is .nan"),
        (
            {"gate": {"max_encode_ms": {"video": 1}}},
            "gate.max_encode_ms has the key 'video'; it must be one of text, clip",
        ),
        ({"evaluate": {"sets": {"..": {"manifest": "a"}}}}, "evaluate.sets has the key '..'"),
        (
            {"evaluate": {"sets": {"mine": {}}}},
            "evaluate.sets.mine.manifest is ''; it must be text that is a path or URL",
        ),
        ({"evaluate": {"sets": {"mine": {"manifest": "a", "clip_s": 0}}}}, "evaluate.sets.mine.clip_s is 0"),
        ({"ablate": {"rows": {"mine": {"sources": ["sf", "sf"]}}}}, "ablate.rows.mine.sources is ['sf', 'sf']"),
        ({"tune": {"space": {"train.audio_lr": {"low": 1, "high": 2}}}}, "tune.space.train.audio_lr is 2"),
        (
            {"tune": {"space": {"train.gone": {"low": 0, "high": 1}}}},
            "tune.space names 'train.gone', but there is no such",
        ),
        ({"tune": {"space": {"train.use_gpu": {"low": 0, "high": 1}}}}, "tune.space names 'train.use_gpu'"),
        ({"tune": {"space": {"train.steps": {"low": 1, "high": 9}}}}, "tune.space has the key 'train.steps'"),
        ({"serve": {"autoscaling": {"replicas": 1}}}, "serve.autoscaling has the key 'replicas'"),
        ({"serve": {"autoscaling": {"min_replicas": 3, "max_replicas": 2}}}, "serve.autoscaling.max_replicas is 2"),
        ({"serve": {"cors_origins": ["*"]}}, "serve.cors_origins[0] is '*'; it must be text that is a site"),
        ({"serve": {"cors_origins": ["https://*.example"]}}, "serve.cors_origins[0] is 'https://*.example'"),
        ({"serve": {"cors_origins": ["https://a.example/"]}}, "serve.cors_origins[0] is 'https://a.example/'"),
        ({"train": {"num_workers": 0}}, "train.num_workers is 0; it must be a whole number from 1 to 10000"),
        ({"train": None}, "train is null; it must be keys and values"),
        ({"train": {"stepz": 1}}, "did you mean steps?"),
        ({"train": {"<<": {}}}, "unknown key 'train.<<'"),
        ({"prepare": {"min_s": 10, "max_s": 5}}, "prepare.min_s is 10.0, above max_s, 5.0"),
        ({"model": {"audio": {"kind": "ast", "pooling": "cls"}, "frontend": {"num_mels": 8}}}, "patches of 16 x 16"),
        ({"model": {"audio": {"depths": [1]}}}, "model.audio.depths has 1 stages and hidden_sizes 4"),
    ],
)
def test_a_slip_is_told_with_what_to_write(values, sentence):
    assert sentence in refused(lambda: from_mapping(Config, values))


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=lambda v: getattr(v, "__name__", v))
def test_nothing_is_offered_that_would_be_refused(kind, name):
    """Whatever comes after "write" is taken, where the slip is out of range as well."""
    hint = hints_of(kind)[name]
    if dataclasses.is_dataclass(kind_of(hint)):
        return
    for value in ("1_000", "-1_000", "0b101", "150%", "1e-4", 1000.0, -2.0, "yes", 0, True, "*", "", " ", 10**9, 7.5):
        try:
            fit(hint, value, name)
        except FieldError as error:
            offered = str(error).partition("; write ")[2].removesuffix(" in quotes").removesuffix(" without quotes")
            if offered:
                fit(hint, parse_yaml(offered, "offered"), name)


def test_numbers_of_numpy_and_lists_are_taken_in_python():
    config = TrainConfig(steps=np.int64(5), audio_lr=np.float32(0.5), weight_decay=0)
    assert (config.steps, config.audio_lr, config.weight_decay) == (5, 0.5, 0.0)
    assert (type(config.steps), type(config.weight_decay)) == (int, float)
    assert mulan_core.config.AudioTowerConfig(depths=[3, 4, 6, 3]).depths == (3, 4, 6, 3)


def test_a_section_alone_names_its_place_in_the_file():
    assert refused(lambda: from_mapping(ServeConfig, {"port": 99999})).startswith("serve.port is 99999")
    assert refused(lambda: ServeConfig(port=99999)).startswith("serve.port is 99999")
    assert refused(lambda: from_mapping(ServeConfig, {"port": 0}, "settings")).startswith("settings.port is 0")
    assert refused(lambda: TuneRange(low=2, high=1)).startswith("tune.space.KEY.low must be below high")


def test_a_huge_or_endless_value_is_told_briefly():
    endless: list[Any] = []
    endless.append(endless)
    laughs: Any = ["ha"] * 10
    for _ in range(30):
        laughs = [laughs] * 10  # 10^30 words, were they written out
    for value in (endless, laughs, "x" * 10**6, {str(n): n for n in range(10**5)}):
        assert len(refused(lambda value=value: from_mapping(Config, {"train": {"steps": value}}))) < 400


def test_every_default_is_within_its_range():
    plain = to_mapping(Config())
    assert from_mapping(Config, plain) == Config()
