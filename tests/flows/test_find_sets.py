"""Which sets a command means, and where they lie; nothing is started for that."""

import pytest
import yaml

from flows.pipeline.sets import describe_sets, find_sets
from flows.runtime.workspace import Workspace
from mulan_core.errors import UserError
from mulan_core.evaluation.sets import SETS


@pytest.fixture
def workspace(tmp_path):
    """A workspace with two configured sets, one of them prepared, and its own data."""
    sets = {"mine": {"manifest": "mine.csv"}, "audioset": {"manifest": "a.csv"}, "musiccaps": {"manifest": "m.csv"}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"evaluate": {"sets": sets}}))
    for folder in ("sets/mine", "sets/audioset", "prepared"):
        (tmp_path / ".mulan" / "data" / folder).mkdir(parents=True)
    (tmp_path / "pairs.tsv").write_text("title\tdescription\n")
    (tmp_path / "datasets" / "audioset").mkdir(parents=True)
    (tmp_path / "datasets" / "audioset" / "ontology.json").write_text("[]")
    return Workspace(tmp_path)


def found(workspace, *words, **more):
    places = find_sets(words, workspace, home=workspace.folder, **more)
    return [(definition.name, str(path.relative_to(workspace.folder))) for definition, path in places]


def test_names_paths_and_both(workspace, monkeypatch):
    monkeypatch.chdir(workspace.folder)
    assert found(workspace) == found(workspace, "demo") == [("own", ".mulan/data/prepared")]
    assert found(workspace, "mine", "audioset-gen25", "audioset-mu141", "ontology-triplets") == [
        ("mine", ".mulan/data/sets/mine"),
        ("audioset-gen25", ".mulan/data/sets/audioset"),
        ("audioset-mu141", ".mulan/data/sets/audioset"),
        ("ontology-triplets", "datasets/audioset/ontology.json"),
    ]
    assert found(workspace, "pairs.tsv", "x=pairs.tsv", "mtg-jamendo-genre=.mulan/data/sets/mine", "own", "own") == [
        ("pairs", "pairs.tsv"),
        ("x", "pairs.tsv"),
        ("mtg-jamendo-genre", ".mulan/data/sets/mine"),
        ("own", ".mulan/data/prepared"),
    ]
    (definition, _), (jamendo, _) = find_sets(
        ["pairs.tsv", "mtg-jamendo-genre=pairs.tsv"], workspace, home=workspace.folder
    )
    assert definition.suites == ("triplets",) and definition.pair_set == "pairs"
    assert jamendo is SETS["mtg-jamendo-genre"]
    rows = {row["name"]: row for row in describe_sets(workspace, home=workspace.folder)}
    assert rows["mine"]["prepared"] and rows["audioset-mu141"]["prepared"] and not rows["song-describer"]["prepared"]
    assert rows["audioset-mu141"]["classes"] == 141
    assert [row["name"] for row in describe_sets(workspace, "mine", home=workspace.folder)] == ["mine"]


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("nothing", "there is no evaluation set 'nothing'; there are: own, playlists"),
        ("musiccaps", "musiccaps is not there .* run `mulan prepare` first"),
        ("song-describer", "mulan data import song_describer.* name the manifest in evaluate.sets of params.yaml"),
        ("playlist-triplets", "give playlist-triplets=FILE"),
        ("x=nowhere", "there is no nowhere for the set x"),
        ("a/b=pairs.tsv", "'a/b' is no name for a set"),
        ("own=pairs.tsv", "own is the workspace's own set"),
    ],
)
def test_mistakes_say_what_to_do(workspace, monkeypatch, word, sentence):
    monkeypatch.chdir(workspace.folder)
    with pytest.raises(UserError, match=sentence):
        found(workspace, word)


def test_suites_must_fit(workspace, monkeypatch):
    monkeypatch.chdir(workspace.folder)
    with pytest.raises(UserError, match="pairs is a set for triplets, not for tagging, probe; leave the set"):
        found(workspace, "pairs.tsv", suites=["probe", "tagging"])
    with pytest.raises(UserError, match="there is no suite 'prob'"):
        found(workspace, suites=["prob"])
    with pytest.raises(UserError, match="two sets are called pairs"):
        found(workspace, "pairs=pairs.tsv", "pairs=.mulan/data/sets/mine")


def test_a_configured_set_needs_a_name_and_a_manifest(tmp_path):
    for sets, sentence in (
        ({"own": {"manifest": "a.csv"}}, r"evaluate\.sets has the key 'own'; .*not own, not demo"),
        ({"a b": {"manifest": "a.csv"}}, r"evaluate\.sets has the key 'a b'; it must be text of letters"),
        (
            {"mine": {"playlists": "a.jsonl"}},
            r"evaluate\.sets\.mine\.manifest is ''; it must be text that is a path or URL",
        ),
        ({"mine": {"manifest": "a.csv", "clips": 3}}, "unknown key 'evaluate.sets.mine.clips'"),
    ):
        (tmp_path / "params.yaml").write_text(yaml.safe_dump({"evaluate": {"sets": sets}}))
        with pytest.raises(UserError, match=sentence):
            _ = Workspace(tmp_path).config
