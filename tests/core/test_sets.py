"""Evaluation sets: the class lists against the official files, and prepared folders and tables read as content."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mulan_core.data import shards
from mulan_core.errors import UserError
from mulan_core.evaluation.sets import SETS, find_set
from mulan_core.evaluation.sets.audioset import GEN_25, GENRES, INSTRUMENTS, MOODS, MU_141, MU_141_B, ROLES
from mulan_core.evaluation.sets.definition import QUERY_SETS, SUITES, check_suites
from mulan_core.evaluation.sets.magnatagatune import ALL_188, TOP_50, is_minz
from mulan_core.evaluation.sets.mtg_jamendo import TOP_50 as JAMENDO_50
from mulan_core.evaluation.sets.playlists import OWN, any_folder
from mulan_core.evaluation.sets.prepared import hash_set, read_content
from mulan_core.evaluation.sets.texts import any_table, read_ontology_pairs, read_text_pairs
from mulan_core.readers.audioset import MUSIC, below, read_names, read_ontology

OFFICIAL = Path(__file__).parents[3] / "shared" / "data"


def official(name: str) -> Path:
    path = OFFICIAL / name
    if not path.exists():
        pytest.skip(f"no official file at {path}")
    return path


def track(track_id: str, split: str = "test", **more) -> dict:
    row = {"track_id": track_id, "split": split, "dataset": "mine", "title": track_id, "sha256": track_id * 8}
    row |= {
        "texts": [{"source": "sf", "text": f"about {track_id}", "drop": None}],
        "labels": [],
        "num_samples": 480_000,
    }
    return row | more


def prepared(folder: Path, rows: list[dict], playlists: list[dict] | None = None, quarantined: tuple = ()) -> Path:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / shards.MANIFEST)
    if playlists is not None:
        pq.write_table(pa.Table.from_pylist(playlists), folder / shards.PLAYLISTS)
    if quarantined:
        pq.write_table(pa.table({"track_id": list(quarantined)}), folder / shards.QUARANTINE)
    return folder


def playlist(name: str, tracks: list[str], split: str = "test") -> dict:
    return {"playlist_id": name, "title": name, "description": f"{name} songs", "track_ids": tracks, "split": split}


def test_the_registry_is_whole():
    for name, one in SETS.items():
        assert name == one.name
        assert one.suites == check_suites(one.suites)
        assert set(one.queries) <= set(QUERY_SETS)
        assert one.title and one.split and one.needs
        assert one.classes is None or len(one.classes) == len(set(one.classes))
    assert {"audioset-gen25", "audioset-mu141", "magnatagatune-top50-minz", "mtg-jamendo-moodtheme"} <= set(SETS)
    with pytest.raises(UserError, match="there is no evaluation set 'nope'"):
        find_set("nope")
    assert check_suites(["triplets", "tagging"]) == ("tagging", "triplets")
    with pytest.raises(UserError, match="there is no suite 'taging'; there are: tagging, probe"):
        check_suites(["taging"])


def test_audiosets_lists_follow_from_the_ontology_and_the_labels():
    ontology, labels = read_ontology(official("audioset/ontology.json")), read_names(official("audioset"))
    nodes = {node["name"]: label for label, node in ontology.items()}

    def branch(name: str) -> set[str]:
        return {labels[label] for label in below(ontology, nodes[name]) if label in labels}

    music = branch("Music")
    assert len(music) == 150
    assert set(GEN_25) == {labels[label] for label in ontology[nodes["Music genre"]]["child_ids"]}
    assert set(INSTRUMENTS) == branch("Musical instrument") and len(INSTRUMENTS) == 80
    assert set(GENRES) == branch("Music genre") and len(GENRES) == 52
    assert set(ROLES) == branch("Music role") and len(ROLES) == 9
    assert set(MOODS) == branch("Music mood") and len(MOODS) == 7
    for reading in (MU_141, MU_141_B):
        assert len(reading) == len(set(reading)) == 141
        assert set(reading) < music
    assert music - set(MU_141) == {"Music", "Song", *MOODS}
    assert len(below(ontology, MUSIC)) == 189


def test_magnatagatunes_lists_are_the_official_ones():
    assert list(ALL_188) == official("mtat/tags_188.txt").read_text().split("\n")[:188]
    listed = official("mtat/output_labels_mtt.txt").read_text()
    assert list(TOP_50) == json.loads(listed[listed.index("[") :].replace("'", '"'))
    assert set(TOP_50) < set(ALL_188)


def test_the_minz_split_keeps_the_clips_with_a_top_50_tag():
    rows = [json.loads(line) for line in official("mtat/mtat_val_test_top50.jsonl").read_text().splitlines()]
    kept = [row["split"] for row in rows if is_minz({"labels": row["tags"], "num_samples": 465_984})]
    assert kept.count("test") == 4_332  # as SampleCNN counts them
    assert kept.count("val") == 1_529
    assert not is_minz({"labels": ["guitar"], "num_samples": 16_000 * 20})


def test_jamendos_lists_are_the_official_ones(tmp_path):
    tags = official("mtg-jamendo/top50.txt").read_text().split()
    assert list(JAMENDO_50) == [tag.replace("---", ":") for tag in tags]
    counted = {"genre": 87, "instrument": 40, "moodtheme": 56}
    for subset, number in counted.items():
        with official(f"mtg-jamendo/split-0/autotagging_{subset}-test.tsv").open(newline="") as file:
            found = {tag for row in list(csv.reader(file, delimiter="\t"))[1:] for tag in row[5:]}
        assert len(found) == number
        assert str(number) in SETS[f"mtg-jamendo-{subset}"].class_list
    folder = prepared(
        tmp_path / "jamendo",
        [track("a", labels=["genre:easylistening", "instrument:piano"]), track("b", labels=["genre:rock"])],
    )
    content = read_content(SETS["mtg-jamendo-genre"], folder)
    assert content.labels["a"] == ["genre:easylistening"]
    assert content.class_texts["genre:easylistening"] == "easy listening"


def test_a_prepared_folder_becomes_queries_answers_and_pairs(tmp_path):
    own = [("sf", "short", None), ("lf", "the longest text of all", "not_about_music"), ("lf", "a longer text", None)]
    texts = [{"source": source, "text": text, "drop": drop} for source, text, drop in own]
    rows = [
        track("a", texts=texts, labels=["genre:Jazz"], held_out=True),
        track("b", labels=["calm"], held_out=False),
        track("c", "train", labels=["calm"], held_out=False),
        track("d", "valid", held_out=False),
    ]
    lists = [playlist("p", ["b", "c", "b"]), playlist("q", ["c", "gone"]), playlist("r", ["a"], "train")]
    folder = prepared(tmp_path / "mine", rows, lists, quarantined=("gone",))
    content = read_content(OWN, folder)
    assert content.tracks == {"train": ["c"], "valid": ["d"], "test": ["a", "b"]}
    assert [(query.id, query.text, query.track_ids) for query in content.queries["title"]] == [("p", "p", ["b"])]
    assert [query.text for query in content.queries["text"]] == ["a longer text", "about b"]
    assert content.pairs == {"playlist": [("p", "p songs")]}
    assert content.held_out == {"a"}
    assert content.classes is None
    assert content.notes == ["1 playlists left out: none of their tracks is in the test split."]
    captions = read_content(SETS["song-describer"], folder)
    assert [query.text for query in captions.queries["caption"]] == ["the longest text of all", "a longer text"]
    assert list(captions.queries) == ["caption"] and not captions.pairs
    assert list(read_content(SETS["playlists"], folder).queries) == ["title", "description"]
    first = hash_set(folder)
    assert hash_set(prepared(tmp_path / "mine", rows, lists[:1])) != first
    assert hash_set(prepared(tmp_path / "mine", rows, lists)) == first


def test_captions_of_two_tracks_that_are_one_text_have_both_as_answers(tmp_path):
    same = [{"source": "lf", "text": "Slow piano. ", "drop": None}]
    folder = prepared(tmp_path / "x", [track("a", texts=same), track("b", texts=same)])
    (query,) = read_content(SETS["musiccaps"], folder).queries["caption"]
    assert (query.text, query.track_ids) == ("Slow piano.", ["a", "b"])


def test_mistakes_in_a_folder_are_told(tmp_path):
    folder = prepared(tmp_path / "x", [track("a", labels=["jazz"]), track("b", labels=["guitar"], num_samples=9)])
    with pytest.raises(UserError, match=r"not one of the 25 classes of audioset-gen25 .* such as jazz, guitar"):
        read_content(SETS["audioset-gen25"], folder)
    with pytest.raises(UserError, match="no test track that belongs to magnatagatune-top50-minz"):
        read_content(SETS["magnatagatune-top50-minz"], folder)
    with pytest.raises(UserError, match=r"is no prepared folder .* audioset-mu141 needs one"):
        read_content(SETS["audioset-mu141"], tmp_path)
    lists = [playlist("p", ["a", "x"]), playlist("q", ["y", "b"])]
    with pytest.raises(UserError, match=r"'p' names the track 'x', which .* 2 of 4 tracks in the playlists"):
        read_content(any_folder("mine"), prepared(tmp_path / "x", [track("a"), track("b")], lists))


def test_the_ontology_is_read_from_a_root_down_each_class_once(tmp_path):
    children = {"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": [], "e": ["a"]}
    nodes = [
        {"id": i, "name": i.upper(), "description": f"what {i} is", "child_ids": c, "restrictions": []}
        for i, c in children.items()
    ]
    nodes[2]["description"] = ""
    (tmp_path / "ontology.json").write_text(json.dumps(nodes))
    notes: list[str] = []
    pairs = read_ontology_pairs(tmp_path, notes, root="a")
    assert sorted(pairs) == [(i.upper(), f"what {i} is") for i in "abd"]
    assert notes == ["1 classes have no description: left out."]
    with pytest.raises(UserError, match="has no class /m/04rlf"):
        read_ontology_pairs(tmp_path / "ontology.json", [])
    for text, message in (('{"a": 1}', "not AudioSet's"), ("no json", "not AudioSet's")):
        (tmp_path / "ontology.json").write_text(text)
        with pytest.raises(UserError, match=message):
            read_ontology_pairs(tmp_path, [])
    with pytest.raises(UserError, match="cannot read"):
        read_ontology_pairs(tmp_path / "gone.json", [])


def test_the_official_ontology_has_189_pairs():
    content = read_content(SETS["ontology-triplets"], official("audioset/ontology.json"))
    assert len(content.pairs["ontology"]) == len(set(content.pairs["ontology"])) == 189
    assert content.all_triplets and not content.notes and not content.tracks
    steelpan = dict(content.pairs["ontology"])["Steelpan"]
    assert steelpan.startswith("Sounds of a tuned percussion instrument")  # the paper's Table 3


def test_tables_of_titles_and_descriptions(tmp_path):
    rows = [("a", "A.", "test"), ("b", "", "test"), ("c", "C.", "train"), ("d", " D. ", "")]
    (tmp_path / "lists.csv").write_text("split,title,description\n" + "".join(f"{s},{t},{d}\n" for t, d, s in rows))
    notes: list[str] = []
    assert read_text_pairs(tmp_path / "lists.csv", notes) == [("a", "A."), ("d", "D.")]
    assert notes == ["1 rows have no title or no description: left out."]
    content = read_content(any_table("mine"), tmp_path / "lists.csv")
    assert list(content.pairs) == ["mine"] and content.all_triplets
    for name, text, message in (
        ("one.jsonl", '{"title": "a", "description": "b"}\n', "has 1 pairs"),
        ("no.tsv", "title\ttext\na\tb\n", "has no column 'description'; found: title, text"),
        ("typed.jsonl", '{"title": 3, "description": "b"}\n', "row 1, title and description must be text"),
        ("no.txt", "", "must be .parquet, .csv, .tsv, .jsonl, .xlsx or .ods"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=message):
            read_content(any_table("mine"), tmp_path / name)
    with pytest.raises(UserError, match="there is no file"):
        read_text_pairs(tmp_path / "gone.tsv", [])
    assert len(read_text_pairs(official("playlists/somafm_channels.tsv"), [])) == 42
    notes = []
    assert len(read_text_pairs(official("incompetech/incompetech_songs.jsonl"), notes)) > 1_300


def test_suites_come_in_order():
    assert OWN.suites == SUITES
