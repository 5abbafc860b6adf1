"""What `mulan data check` tells of the stages behind prepare; what it proposes is held against itself."""

import json
import shutil

import numpy as np
import pytest
import soundfile

from mulan_core import outlook
from mulan_core.config import Config, from_mapping
from mulan_core.data.check import check_manifest
from mulan_core.fields import lay_over
from mulan_core.outlook import Outlook
from mulan_core.yaml_file import parse_yaml

PREPARE = {"min_s": 0.1, "clip_s": 1.0, "shard_mb": 1}
AUC = "retrieval/text/auc"
NUMBERS = {
    "prepare": PREPARE,
    "gate": {"floors": {AUC: 0.6}, "compare": [AUC]},
    "model": {"text": {"pretrained": "demo-minilm"}},
}
JAPANESE = "\u9759\u304b\u306a\u30d4\u30a2\u30ce\u306e\u66f2\u9b31\u84bc\u3068\u3057\u305f\u68ee"
ROOM = {"disk_free": 10**12, "memory": 10**12}


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    """40 files of one length and different content."""
    folder = tmp_path_factory.mktemp("audio")
    for i in range(40):
        soundfile.write(folder / f"{i}.wav", 0.1 * np.random.default_rng(i).standard_normal(1600), 8000)
    return folder


def rows_of(splits, text=lambda i: f"calm piano number {i} in the rain", **more):
    """One row a track: 40 of them, the first as many as given in each split."""
    names = [split for split, number in splits.items() for _ in range(number)]
    return [{"uri": f"{i}.wav", "split": split, "text": text(i)} | more for i, split in enumerate(names)]


GOOD = {"train": 28, "valid": 4, "test": 8}


def told(audio, rows, numbers=None, playlists=(), **room):
    path = audio / "tracks.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    config = lay_over(from_mapping(Config, NUMBERS), numbers or {})
    shown = Outlook(config, playlists)
    report = check_manifest(path, config.prepare, outlook=shown)
    assert not report["bad_rows"] and not report["bad_files"]
    return report | shown.report(seconds=3600 * report["hours"], **ROOM | room)


def test_a_good_catalogue_is_not_refused(audio):
    report = told(audio, rows_of(GOOD))
    assert (report["refusals"], report["proposal"], report["advice"], report["notes"]) == ([], None, None, [])
    assert report["needs"].startswith("it takes about 1.0 GB of disk, 1,000.0 GB are free and 6.0 GB of memory")


@pytest.mark.parametrize(
    ("rows", "numbers", "said"),
    [
        (rows_of({"valid": 4, "test": 8}), {}, "no usable track is in split train"),
        (rows_of({"train": 8}), {}, "no usable track is in split test, so nothing can be evaluated"),
        (rows_of(GOOD, lambda i: ""), {}, "no training track has a text to train on: there is none in the table"),
        (
            rows_of(GOOD, lambda i: "https://x.com/a" if i % 4 else "2019"),
            {},
            "train on: sf: the filters drop 28 of 28: 21 url (a link, an e-mail address, a handle), 7 number (digits",
        ),
        (
            rows_of(GOOD, lambda i: "Thanks to all of you who came to my birthday party last week"),
            {},
            "train on: lf: the filters drop 28 of 28: 28 not_about_music (LF that",
        ),
        (rows_of(GOOD), {"train": {"source_weights": {"lf": 1}}}, "sf: train.source_weights gives it no weight"),
        (rows_of({"train": 30, "test": 8}), {"train": {"checkpoint_selection": "best"}}, "fewer than two validation"),
        (rows_of(GOOD), {"gate": {"min_items": 20}}, f"{AUC} would be measured on 8 text queries, at least 20 needed"),
        (rows_of(GOOD, lambda i: "calm piano"), {}, f"{AUC} would be measured on 1 text queries, at least 5 needed"),
        (
            rows_of(GOOD),
            {"gate": {"floors": {"tagging/genre/roc_auc": 0.6}}},
            "tagging/genre/roc_auc cannot be measured, no test track has a label of the facet genre",
        ),
        (
            rows_of(GOOD),
            {"gate": {"floors": {"probe/roc_auc": 0.6}}},
            "probe/roc_auc cannot be measured, no test track has a label at all",
        ),
        (
            rows_of(GOOD, labels=["genre:Jazz"]),
            {"gate": {"floors": {"tagging/held_out/genre/roc_auc": 0.6}}},
            "would be measured on 0 held out tracks",
        ),
        (rows_of(GOOD), {"gate": {"floors": {"retrieval/title/auc": 0.6}}}, "measured on 0 title queries"),
    ],
)
def test_what_a_later_stage_would_refuse_is_told(audio, rows, numbers, said):
    assert any(said in refusal for refusal in told(audio, rows, numbers)["refusals"])


def test_labels_and_playlists_are_what_their_metrics_need(audio):
    rows = rows_of(GOOD, labels=["genre:Jazz"], held_out=True)
    numbers = {
        "gate": {"floors": {"tagging/genre/roc_auc": 0.6, "tagging/held_out/genre/roc_auc": 0.6, "probe/roc_auc": 0.6}}
    }
    assert told(audio, rows, numbers)["refusals"] == []
    rows = [row | {"track_id": f"t{i}"} for i, row in enumerate(rows)]
    lists = [
        {"playlist_id": str(i), "title": f"T{i}", "description": "d", "track_ids": [f"t{32 + i}"], "split": "test"}
        for i in range(5)
    ]
    numbers = {"gate": {"floors": {"retrieval/title/auc": 0.6, "triplets/playlist/accuracy": 0.6}}}
    assert told(audio, rows, numbers, lists)["refusals"] == []
    lists[0]["track_ids"] = ["elsewhere"]
    assert "names the track 'elsewhere'" in told(audio, rows, numbers, lists)["refusals"][0]


def test_a_catalogue_that_is_too_small_to_train_on_is_named(audio, monkeypatch):
    assert told(audio, rows_of({"train": 8, "valid": 2, "test": 2}))["few"] == 12
    monkeypatch.setattr(outlook, "MIN_TRACKS", 40)
    assert told(audio, rows_of({"train": 29, "test": 10}))["few"] == 39
    assert told(audio, rows_of({"train": 30, "test": 10}))["few"] is None


def test_the_ways_out_that_are_proposed_work(audio):
    strict = {"gate": {"min_items": 12}}
    report = told(audio, rows_of(GOOD), strict)
    assert len(report["refusals"]) == 1
    assert told(audio, rows_of(GOOD), parse_yaml(report["proposal"], "p"))["refusals"] == []
    assert report["advice"] == (
        "it passes with a column split in which 24 of the 40 tracks are train, 4 valid and 12 test"
    )
    assert told(audio, rows_of({"train": 24, "valid": 4, "test": 12}), strict)["refusals"] == []
    few = told(audio, rows_of({"train": 34, "test": 3}))
    assert few["proposal"] is None and few["advice"].endswith("29 of the 37 tracks are train, 3 valid and 5 test")
    assert (
        told(audio, rows_of({"train": 6, "test": 2}))["advice"] == "give more tracks: 10 or more, of which 5 are test"
    )


def test_recordings_in_two_splits_are_found_by_id_and_by_content(audio, tmp_path):
    for i in range(40):
        shutil.copy(audio / f"{i}.wav", tmp_path)
    shutil.copy(tmp_path / "0.wav", tmp_path / "39.wav")
    (refusal,) = told(tmp_path, rows_of(GOOD))["refusals"]
    assert "1 recording is in training and evaluation both (1 by audio)" in refusal and "--allow-overlap" in refusal
    assert told(tmp_path, rows_of(GOOD), {"prepare": {"allow_overlap": True}})["refusals"] == []
    rows = [row | {"track_id": f"t{i}"} for i, row in enumerate(rows_of(GOOD))]
    rows[38]["uri"], rows[39]["uri"] = "1.wav", "2.wav"
    assert "2 recordings are in training and evaluation both" in told(tmp_path, rows)["refusals"][0]


@pytest.mark.parametrize(("room", "said"), [("disk_free", "of disk, 0.5 GB are free"), ("memory", "this machine has")])
def test_a_machine_that_is_too_small_is_told_with_numbers(audio, room, said):
    (refusal,) = told(audio, rows_of(GOOD), **{room: 5 * 10**8})["refusals"]
    assert refusal.startswith("it takes ") and said in refusal and "0.5 GB" in refusal


def test_texts_that_the_tokenizer_does_not_know_are_told(audio):
    report = told(audio, rows_of(GOOD, lambda i: f"{JAPANESE} {i}"))
    assert "28 script (most letters" in report["refusals"][0]
    (note,) = report["notes"]
    assert "of the tokens of your texts and labels are unknown" in note and "text.scripts" in note
    assert "unknown" in told(audio, rows_of(GOOD, labels=[f"{JAPANESE}{JAPANESE}"]))["notes"][0]
    assert told(audio, rows_of(GOOD, lambda i: f"caf\u00e9 jazz {i}: a na\u00efve waltz"))["notes"] == []
    closed = told(audio, rows_of(GOOD), {"model": {"text": {"pretrained": str(audio / "none")}}})
    assert "tokenizer does not open here" in closed["notes"][0] and closed["refusals"] == []
