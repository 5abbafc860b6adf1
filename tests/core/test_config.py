"""The YAML files and their errors."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from mulan_core.config import Config, EvaluateConfig, from_mapping, load_config, to_mapping
from mulan_core.errors import UserError
from mulan_core.fields import Section, hints_of
from mulan_core.yaml_file import read_yaml

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "name", ["params.yaml", "configs/own.yaml", "configs/resnet50.yaml", "configs/ast.yaml", "configs/short_chunk.yaml"]
)
def test_shipped_files_are_valid_and_survive_a_round_trip(name):
    config = load_config(ROOT / name)
    assert from_mapping(Config, to_mapping(config)) == config


@pytest.mark.parametrize("name", ["resnet50", "ast", "short_chunk"])
def test_the_papers_models_are_the_same_over_the_numbers_of_a_catalogue(name):
    """`--params` lays a file over configs/own.yaml: nothing of that one may leak into a model of the paper."""
    alone = load_config(ROOT / f"configs/{name}.yaml")
    over = load_config(ROOT / f"configs/{name}.yaml", over=load_config(ROOT / "configs/own.yaml"))
    told = read_yaml(ROOT / f"configs/{name}.yaml")
    assert over.prepare == alone.prepare and over.model.frontend == alone.model.frontend
    if name == "short_chunk":  # it has no text tower and meets no gate
        assert set(told) == {"catalogue", "prepare", "model", "train"} and "text" not in told["model"]
        assert replace(over.train, text_lr=alone.train.text_lr) == alone.train
        return
    assert over.train == alone.train and over.gate == alone.gate
    assert over.model.text == alone.model.text and over.model.tau_min == alone.model.tau_min
    unused = {"layer_type", "embedding_size", "hidden_sizes", "depths"} if name == "ast" else set()
    audio = to_mapping(over.model.audio), to_mapping(alone.model.audio)
    assert all(audio[0][key] == audio[1][key] for key in audio[0].keys() - unused)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"trian": {}}, "unknown key 'trian'; known here: catalogue, about, corpus, text"),
        ({"train": {"stepz": 1}}, "unknown key 'train.stepz'"),
        ({"train": {"steps": "many"}}, "train.steps is 'many'; it must be a whole number"),
        ({"train": {"use_gpu": 1}}, "train.use_gpu is 1; it must be true or false"),
        ({"train": {"loss": "l2"}}, "train.loss is 'l2'; it must be one of mulan, averaged, infonce, siglip"),
        (
            {"train": {"source_weights": {"xx": 1.0}}},
            "train.source_weights has the key 'xx'; it must be text that is one of sf, lf, pl, aset",
        ),
        ({"train": {"source_weights": {"sf": 0}}}, "give one above 0"),
        ({"train": {"batch_size": 7}}, "does not divide by num_workers 2"),
        ({"train": {"min_workers": 3}}, "give 1 to num_workers (2), or null"),
        (
            {"train": {"batch_size": 8, "num_workers": 4, "min_workers": 2}},
            "does not divide by 3, one of the 2 to 4 workers; give a multiple of 12",
        ),
        ({"train": {"max_failures": -2}}, "train.max_failures is -2; it must be a whole number from -1"),
        ({"serve": {"num_gpus": 2.0}}, "serve.num_gpus is 2.0; it must be a number from 0 to 1"),
        (
            {"serve": {"query_log_days": 0}},
            "serve.query_log_days is 0; it must be a whole number from 1 to 36500, or null",
        ),
        ({"model": {"audio": {"depths": [1, "a"]}}}, "model.audio.depths[1] is 'a'"),
        ({"model": {"tau_min": 0.5}}, "tau_min <= tau_init"),
        ({"model": {"frontend": {"fmax_hz": 9000}}}, "above half the sample rate"),
        ({"model": {"frontend": {"fmin_hz": 7900}}}, "0 <= fmin_hz < fmax_hz, got 7900.0 and 7800.0"),
        ({"model": {"frontend": {"log_offset": 0}}}, "log(0) is -inf"),
        ({"model": {"frontend": {"mel_scale": "bark"}}}, "must be one of slaney, htk, kaldi"),
        ({"model": {"frontend": {"sample_rate_hz": 22050, "fft_size": 1024}}}, "differs from"),
        ({"model": {"audio": {"kind": "ast"}}}, "ast takes cls or cls_dist"),
        ("text", "must be keys and values"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_key(values, sentence):
    with pytest.raises(UserError, match=r"^[^\n]*$") as error:
        from_mapping(Config, values)
    assert sentence in str(error.value)


def test_file_errors_name_the_file(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the configuration .*missing\.yaml"):
        load_config(tmp_path / "missing.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1,\n")
    with pytest.raises(UserError, match=r"broken\.yaml is not valid YAML"):
        load_config(broken)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"templates": []}, "evaluate.templates is []; it must be a list of 1 or more, each once"),
        ({"templates": ["{}", "{}"]}, "a list of 1 or more, each once"),
        ({"templates": ["a song"]}, "evaluate.templates[0] is 'a song'; it must be text that holds {} once"),
        ({"templates": ["{} and {}"]}, "must be text that holds {} once"),
        ({"templates": "{} music"}, "must be a"),
        ({"probe_c": [0.0, 1.0]}, "evaluate.probe_c[0] is 0.0; it must be a number above 0"),
        ({"bootstrap": -1}, "evaluate.bootstrap is -1; it must be a whole number from 0"),
    ],
)
def test_evaluation_numbers_are_checked(values, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        from_mapping(EvaluateConfig, values, "evaluate")


@pytest.mark.parametrize(
    ("section", "old", "new"),
    [
        ("train", "keep: best", "checkpoint_selection"),
        ("train", "readers: 1", "num_loader_workers"),
        ("evaluate", "probe_l2: [1.0]", "probe_c"),
        ("ablate", "at_once: 2", "max_concurrent"),
        ("tune", "at_once: 2", "max_concurrent"),
        ("tune", "space: {train.batch_size: {among: [1]}}", "choices"),
    ],
)
def test_a_field_that_was_renamed_is_told_by_its_new_name(tmp_path, section, old, new):
    path = tmp_path / "params.yaml"
    path.write_text(f"{section}: {{{old}}}\n")
    with pytest.raises(UserError, match=rf"unknown key .*; it is called {new} now"):
        load_config(path)
    for kind in Section.__subclasses__():
        assert not set(kind.renamed) & set(hints_of(kind)), "an old name is free again only with another meaning"
        assert set(kind.renamed.values()) <= set(hints_of(kind))
