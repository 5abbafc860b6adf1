"""A release is served only if its parts belong together."""

import dataclasses
import json
import shutil

import pytest

from mulan_core.errors import UserError
from serving.release import Release, check_release, preprocessing_hash


def test_a_release_that_fits_passes(release, store):
    check_release(release, store)
    assert Release.from_dict(json.loads(json.dumps(release.to_dict()))) == release


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_version": "8"}, "model version is 8 in the release and 7 in the collection"),
        ({"data_hash": "0" * 32}, "data hash is 0000"),
        ({"preprocessing_hash": "beef"}, "preprocessing hash is .* in the model and beef in the release"),
        ({"collection": "tracks_gone"}, "tracks_gone"),
        ({"model_path": "/nowhere"}, "not a saved MuLan model"),
    ],
)
def test_whatever_disagrees_is_named(release, store, changes, words):
    with pytest.raises(UserError, match=words):
        check_release(dataclasses.replace(release, **changes), store)


@pytest.mark.parametrize(
    ("file", "change", "changes_hash"),
    [
        ("config.json", ('"num_mels": 64', '"num_mels": 32'), True),
        ("processor_config.json", ('"max_tokens": 32', '"max_tokens": 16'), True),
        ("tokenizer.json", ('"lowercase": true', '"lowercase": false'), True),
        ("config.json", ('"tau_init": 0.1', '"tau_init": 0.2'), False),
    ],
)
def test_preprocessing_hash_sees_preprocessing_only(model_folder, tmp_path, file, change, changes_hash):
    copy = tmp_path / "model"
    shutil.copytree(model_folder, copy)
    assert preprocessing_hash(copy) == preprocessing_hash(model_folder)
    text = (copy / file).read_text(encoding="utf-8")
    assert change[0] in text
    (copy / file).write_text(text.replace(*change), encoding="utf-8")
    assert (preprocessing_hash(copy) != preprocessing_hash(model_folder)) is changes_hash


def test_a_model_of_another_dimension_is_refused(release, store, model_folder, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(model_folder, copy)
    text = (copy / "config.json").read_text(encoding="utf-8")
    (copy / "config.json").write_text(text.replace('"embedding_dim": 128', '"embedding_dim": 64'), encoding="utf-8")
    with pytest.raises(UserError, match="dimension is 64 in the model and 128 in the collection"):
        check_release(release, store, copy)
