"""Readers of public data sets: made fixtures in each official layout, and mangled ones."""

from pathlib import Path

import pytest
from reader_fixtures import (
    ANNOTATIONS,
    AUDIOSET,
    CAPTIONS,
    DESCRIBER,
    FMA,
    GENRES,
    INFO,
    LABELS,
    META,
    MUSIC4ALL,
    MUSICCAPS,
    SEGMENTS,
    TRACK,
    jamendo,
    parquet,
    write,
)

from mulan_core.data.tracks import read_manifest
from mulan_core.errors import UserError
from mulan_core.readers import DATASETS, find_dataset
from mulan_core.readers.dataset import recording_id
from mulan_core.readers.importing import IMPORTED, import_tracks, write_manifest
from mulan_core.readers.magnatagatune import BROKEN


def audio_of(tmp_path, *names):
    for name in names:
        path = tmp_path / "audio" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "audio").mkdir(exist_ok=True)
    return str(tmp_path / "audio")


def rows_of(tmp_path, name, files, *audio, keep_missing=False, **options):
    folder = write(tmp_path / "official", files)
    dataset = DATASETS[name]
    imported = import_tracks(dataset, folder, audio_of(tmp_path, *audio), keep_missing=keep_missing, options=options)
    write_manifest(imported.table, tmp_path / "m.parquet")
    assert read_manifest(tmp_path / "m.parquet").to_pylist() == imported.table.to_pylist()
    assert imported.table.schema == IMPORTED
    return imported.table.to_pylist(), imported


def texts(row, source):
    return [text["text"] for text in row["texts"] if text["source"] == source]


def refused(tmp_path, name, files, sentence, **options):
    with pytest.raises(UserError) as error:
        rows_of(tmp_path, name, files, keep_missing=True, **options)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_audioset(tmp_path):
    rows, imported = rows_of(tmp_path, "audioset", AUDIOSET, "Y-aB_xyz0123.wav", "ab_Xyz-0123_0.flac")
    assert [row["track_id"] for row in rows] == ["youtube:-aB_xyz0123", "youtube:ab_Xyz-0123"]
    assert [row["labels"] for row in rows] == [["Music", "Reggae, roots"], ["Speech"]]
    assert texts(rows[0], "aset") == ["Music", "Reggae, roots"]
    assert {row["split"] for row in rows} == {"test"}
    assert Path(rows[0]["uri"]).name == "Y-aB_xyz0123.wav"
    assert rows[0]["start_s"] is None, "the usual downloaders cut the segment out"
    assert imported.missing == ()


def test_audiosets_options(tmp_path):
    rows, _ = rows_of(tmp_path, "audioset", AUDIOSET, keep_missing=True, music_only=True, whole_videos=True)
    assert [(row["start_s"], row["duration_s"]) for row in rows] == [(30.0, 10.0)]
    one = SEGMENTS.replace("/m/04rlf,/m/06cqb", "/m/06cqb")
    rows, _ = rows_of(
        tmp_path, "audioset", {"balanced_train_segments.csv": one}, keep_missing=True, expand_parents=True
    )
    assert (rows[0]["split"], rows[0]["labels"]) == ("train", ["Reggae, roots", "Music"])


def test_audiosets_ids_differ_in_case_alone(tmp_path):
    """A file of another id must not count, even on a disk that does not tell the two apart."""
    segments = '-abc, 0.000, 10.000, "/m/04rlf"\n-ABC, 0.000, 10.000, "/m/04rlf"\n'
    rows, imported = rows_of(tmp_path, "audioset", AUDIOSET | {"eval_segments.csv": segments}, "-ABC.wav")
    assert [row["track_id"] for row in rows] == ["youtube:-ABC"]
    assert imported.missing == ("-abc.wav",)


def test_musiccaps(tmp_path):
    files = {"musiccaps-public.csv": MUSICCAPS, "class_labels_indices.csv": LABELS}
    rows, imported = rows_of(tmp_path, "musiccaps", files, "[-aB_xyz0123]-[30-40].wav", "Zz_________.mp3")
    assert [row["split"] for row in rows] == ["test", "train"]
    assert texts(rows[0], "sf") == ["slow beat", "singer's voice"]
    assert texts(rows[0], "lf") == ["A slow song,\nwith a beat."]
    assert rows[0]["labels"] == ["Music", "Reggae, roots"]
    assert imported.notes == ()


def test_musiccaps_without_names_has_no_labels_and_says_so(tmp_path):
    rows, imported = rows_of(tmp_path, "musiccaps", {"musiccaps-public.csv": MUSICCAPS}, keep_missing=True)
    assert [row["labels"] for row in rows] == [[], []]
    assert "class_labels_indices.csv" in imported.notes[0]


def test_magnatagatune(tmp_path):
    rows, imported = rows_of(
        tmp_path, "magnatagatune", {"annotations_final.csv": ANNOTATIONS}, "0/other-x-01-y-0-29.mp3", keep_missing=True
    )
    assert [row["split"] for row in rows] == ["test", "valid", "train"]
    assert rows[0]["track_id"] == "mtat:some_band-first_album-01-a_song-30-59"
    assert (rows[0]["title"], rows[0]["artist"]) == ("a song", "some band")
    assert rows[0]["labels"] == texts(rows[0], "sf") == ["no voice", "beat", "beats"]
    assert imported.notes == ("1 clips left out that are empty in the official archive",)
    assert len(imported.missing) == 2


def test_magnatagatunes_options_and_titles(tmp_path):
    files = {"annotations_final.csv": ANNOTATIONS, "clip_info_final.csv": INFO}
    synonyms = tmp_path / "synonyms.json"
    synonyms.write_text('[["beat", "beats"]]')
    rows, _ = rows_of(
        tmp_path, "magnatagatune", files, keep_missing=True, top=1, drop_untagged=True, synonyms=str(synonyms)
    )
    assert [row["labels"] for row in rows] == [["beat"], ["beat"]]
    assert texts(rows[0], "sf") == ["no voice", "beat"]
    assert (rows[0]["title"], rows[0]["artist"]) == ("A Song", "Some Band")
    assert rows[1]["title"] == "b song"


def test_mtg_jamendo(tmp_path):
    other = "track_1093792\tartist_440692\talbum_130370\t92/1093792.mp3\t197.0\tgenre---pop"
    files = jamendo(train=[TRACK], test=[other]) | {"raw.meta.tsv": META}
    rows, _ = rows_of(tmp_path, "mtg_jamendo", files, "48/948.low.mp3", keep_missing=True, subset="genre")
    assert [row["split"] for row in rows] == ["train", "test"]
    assert rows[0]["labels"] == ["genre:easylistening", "genre:rock"], "and no carriage return on the last"
    assert texts(rows[0], "sf") == ["easy listening", "rock"]
    assert rows[0]["uri"].endswith("48/948.low.mp3")
    assert (rows[0]["title"], rows[0]["artist"]) == ("A Song", "A Band")
    assert (rows[1]["title"], rows[1]["artist"]) == (None, "artist_440692")


def test_fma(tmp_path):
    files = {"tracks.csv": FMA, "genres.csv": GENRES}
    rows, _ = rows_of(tmp_path, "fma", files, "000/000002.mp3", keep_missing=True)
    assert [row["track_id"] for row in rows] == ["fma:2", "fma:141"]
    assert [row["split"] for row in rows] == ["train", "valid"]
    assert [row["labels"] for row in rows] == [["genre:Hip-Hop"], ["genre:Hip-Hop", "genre:Experimental"]]
    assert texts(rows[0], "lf") == ["Loud & fast, live"]
    assert texts(rows[1], "sf") == ["Hip-Hop", "Experimental", "lo-fi", "tape"]
    assert [row["license"] for row in rows] == ["CC BY", DATASETS["fma"].license]
    rows, _ = rows_of(tmp_path, "fma", files, keep_missing=True, subset="small")
    assert [(row["track_id"], row["title"], row["artist"]) for row in rows] == [("fma:2", "Food", "A Name")]


def test_song_describer(tmp_path):
    rows, imported = rows_of(tmp_path, "song_describer", {"song_describer.csv": DESCRIBER}, "92/1093792.2min.mp3")
    assert [row["track_id"] for row in rows] == ["jamendo:1093792"]
    assert texts(rows[0], "lf") == ["Slow-paced pop ballad for an early morning walk.", "A ballad, sung."]
    assert (rows[0]["split"], rows[0]["artist"]) == ("test", "artist_440692")
    assert imported.counts()["missing"] == 1
    rows, _ = rows_of(tmp_path, "song_describer", {}, keep_missing=True, valid_only=True)
    assert [texts(row, "lf") for row in rows] == [["Slow-paced pop ballad for an early morning walk."]]


def test_song_describers_tags_of_jamendo(tmp_path):
    tagged = "caption_id,track_id,caption,is_valid_subset,artist_id,path,genre,mood/theme\n"
    tagged += "1,948,Loud.,True,87,48/948.mp3,\"['genre---rock', 'pop']\",[]\n"
    rows, _ = rows_of(tmp_path, "song_describer", {"song_describer.csv": tagged}, keep_missing=True)
    assert rows[0]["labels"] == ["genre:rock", "genre:pop"]


def test_lp_musiccaps_of_musiccaps(tmp_path):
    row = {"ytid": "-aB", "start_s": "30", "end_s": "40", "aspect_list": "['calm']", "is_audioset_eval": "True"}
    row |= {"audioset_positive_labels": "/m/04rlf", "caption_ground_truth": "Heard.", **CAPTIONS}
    parquet(tmp_path / "official" / "data" / "test-00000-of-00001.parquet", row, row)
    files = {"class_labels_indices.csv": LABELS}
    rows, imported = rows_of(tmp_path, "lp_musiccaps", files, keep_missing=True)
    assert [(row["track_id"], row["split"], row["labels"]) for row in rows] == [("youtube:-aB", "test", ["Music"])]
    assert texts(rows[0], "lf") == ["Heard.", "By writing.", "By summary.", "By paraphrase."]
    assert imported.repeated == 1
    rows, _ = rows_of(tmp_path, "lp_musiccaps", files, keep_missing=True, predicted=True)
    assert "By attribute_prediction." in texts(rows[0], "lf")


def test_lp_musiccaps_of_magnatagatune_names_clips_as_magnatagatune_does(tmp_path):
    path = "f/some_band-first_album-01-a_song-30-59.mp3"
    row = {"track_id": "2", "title": "A Song", "artist_name": "Some Band", "release": "First", "tag_top50": ["beat"]}
    row |= {"tag_top188": ["beat", "no voice"], "path": path, **CAPTIONS}
    empty = row | {"tag_top50": [], "tag_top188": [], "path": "c/x-y-01-z-0-29.mp3"} | dict.fromkeys(CAPTIONS, "")
    parquet(tmp_path / "official" / "test.parquet", row, empty, row | {"path": BROKEN[0]})
    rows, _ = rows_of(tmp_path, "lp_musiccaps", {}, keep_missing=True)
    theirs, _ = rows_of(tmp_path, "magnatagatune", {"annotations_final.csv": ANNOTATIONS}, keep_missing=True)
    assert [row["track_id"] for row in rows] == [theirs[0]["track_id"], "mtat:x-y-01-z-0-29"]
    assert [row["split"] for row in rows] == ["test", "valid"]
    assert [row["labels"] for row in rows] == [["beat", "no voice"], []]
    assert rows[1]["texts"] == []


def test_lp_musiccaps_of_the_million_songs(tmp_path):
    row = {"track_id": "TRIHXPZ128F1466744", "title": "T", "artist_name": "A", "release": "R", "year": 1994}
    parquet(tmp_path / "official" / "valid.parquet", row | {"tag": ["soul"], **CAPTIONS})
    rows, _ = rows_of(tmp_path, "lp_musiccaps", {}, "I/H/X/TRIHXPZ128F1466744.mp3")
    assert [(row["track_id"], row["split"], row["labels"]) for row in rows] == [
        ("msd:TRIHXPZ128F1466744", "valid", ["soul"])
    ]
    parquet(tmp_path / "other" / "part.parquet", row | {"tag": ["soul"], **CAPTIONS})
    with pytest.raises(UserError, match=r"part.parquet: the file's name should start with train, valid or test"):
        import_tracks(DATASETS["lp_musiccaps"], tmp_path / "other", str(tmp_path), keep_missing=True)


def test_music4all(tmp_path):
    rows, imported = rows_of(tmp_path, "music4all", MUSIC4ALL, "audios/0009fFIM1eYThaPg.mp3")
    assert [(row["track_id"], row["title"]) for row in rows] == [("music4all:0009fFIM1eYThaPg", "A, Song")]
    assert rows[0]["labels"] == ["genre:pop", "genre:soul", "tag:pop", "tag:feel: good"]
    assert texts(rows[0], "sf") == ["pop", "soul", "feel: good"]
    assert "no official split" in imported.notes[0]
    assert imported.missing == ("x1.mp3",)


@pytest.mark.parametrize(
    ("name", "files", "sentence"),
    [
        ("audioset", {"class_labels_indices.csv": LABELS}, "there is no balanced_train_segments.csv or "),
        ("audioset", {"eval_segments.csv": SEGMENTS}, "there is no class_labels_indices.csv or ontology.json"),
        (
            "audioset",
            AUDIOSET | {"eval_segments.csv": '# x\n-a, 0.0, 10.0, "/m/04rlf"\n-b, 0.0, 10.0, /m/04rlf,/m/06cqb\n'},
            "eval_segments.csv, row 2: 5 cells where a segment has 4",
        ),
        ("audioset", AUDIOSET | {"eval_segments.csv": "-a, x, 10.0, /m/04rlf\n"}, "row 1, column 'start_seconds': not"),
        ("audioset", AUDIOSET | {"eval_segments.csv": "-a, 0, 10.0, /m/nope\n"}, "row 1: label '/m/nope' has no"),
        ("audioset", AUDIOSET | {"class_labels_indices.csv": "index,mid\n"}, "has no column 'display_name'"),
        ("musiccaps", {}, "there is no musiccaps-public.csv in"),
        (
            "musiccaps",
            {"musiccaps-public.csv": MUSICCAPS.replace(",", "\t")},
            "is comma-separated; found: ytid\tstart_s",
        ),
        ("musiccaps", {"musiccaps-public.csv": ""}, "has no column 'ytid'"),
        (
            "musiccaps",
            {"musiccaps-public.csv": MUSICCAPS.replace("['calm']", "calm")},
            "musiccaps-public.csv, row 2, column 'aspect_list': not a list",
        ),
        (
            "magnatagatune",
            {"annotations_final.csv": ANNOTATIONS.replace("\t", ",")},
            "annotations_final.csv has no column 'clip_id'; the official file is tab-separated",
        ),
        ("magnatagatune", {"annotations_final.csv": ANNOTATIONS.replace('"0"', '"2"')}, "row 2, column 'no voice'"),
        ("magnatagatune", {"annotations_final.csv": ANNOTATIONS.replace("f/", "z/")}, "row 1, column 'mp3_path'"),
        ("fma", {"tracks.csv": FMA}, "there is no genres.csv"),
        ("fma", {"tracks.csv": FMA.replace("subset", "size"), "genres.csv": GENRES}, "no column 'set.subset'"),
        ("fma", {"tracks.csv": FMA + "3,x\n", "genres.csv": GENRES}, "tracks.csv, row 3: expected a track's number"),
        ("fma", {"tracks.csv": FMA.replace("training", "dev"), "genres.csv": GENRES}, "column 'set.split': 'dev'"),
        ("song_describer", {"song_describer.csv": DESCRIBER.replace("path", "file", 1)}, "has no column 'path'"),
        ("song_describer", {"song_describer.csv": DESCRIBER + "1,2\n"}, "row 4: 2 cells where the header has 9"),
        (
            "music4all",
            MUSIC4ALL | {"id_tags.csv": "id,tags\n"},
            "id_tags.csv has no column 'id'; the official file is tab",
        ),
        ("lp_musiccaps", {}, "there is no .parquet file in"),
        ("lp_musiccaps", {"test.parquet": "no parquet at all"}, "test.parquet is not a Parquet file"),
    ],
)
def test_mangled_files_are_one_sentence_with_file_and_row(tmp_path, name, files, sentence):
    refused(tmp_path, name, files, sentence)


def test_mangled_jamendo_and_bytes(tmp_path):
    refused(tmp_path, "mtg_jamendo", jamendo(train=[TRACK.rsplit("\t", 2)[0]]), "row 1: 5 cells", subset="genre")
    refused(tmp_path, "mtg_jamendo", jamendo(train=[TRACK + "\tfast"]), "row 1: tag 'fast' is not", subset="genre")
    refused(tmp_path, "mtg_jamendo", jamendo(), "autotagging_top50tags-train.tsv in", subset="top50tags")
    refused(tmp_path, "mtg_jamendo", jamendo(), "option subset is one of all, genre", subset="genres")
    (tmp_path / "official" / "song_describer.csv").write_bytes(DESCRIBER.encode() + b"1,2,\xff\n")
    refused(tmp_path, "song_describer", {}, "song_describer.csv is not a table of text in UTF-8")
    parquet(tmp_path / "official" / "test.parquet", {"ytid": "x"})
    refused(tmp_path, "lp_musiccaps", {}, "has not the columns of LP-MusicCaps MC, MTT or MSD; found: ytid")


def test_missing_audio_never_fails_an_import_but_a_wrong_folder_does(tmp_path):
    folder = write(tmp_path / "official", {"song_describer.csv": DESCRIBER})
    dataset = DATASETS["song_describer"]
    with pytest.raises(UserError, match=r"not one of 2 tracks has its audio in .*audio .*92/1093792.2min.mp3"):
        import_tracks(dataset, folder, audio_of(tmp_path))
    kept = import_tracks(dataset, folder, audio_of(tmp_path), keep_missing=True)
    assert kept.counts() | {"texts": 0} == {
        "tracks": 2, "with_audio": 0, "missing": 2, "repeated": 0, "written": 2, "splits": {"test": 2}, "texts": 0,
        "labels": 0,
    }  # fmt: skip
    assert Path(kept.table["uri"][0].as_py()) == tmp_path / "audio" / "92" / "1093792.2min.mp3"
    with pytest.raises(UserError, match="there is no audio folder"):
        import_tracks(dataset, folder, str(tmp_path / "nope"))
    with pytest.raises(UserError, match="there is no folder"):
        import_tracks(dataset, tmp_path / "nope", audio_of(tmp_path))


def test_audio_behind_a_url(tmp_path):
    import fsspec

    disk = fsspec.filesystem("memory")
    disk.pipe("/bucket/audio/92/1093792.2min.mp3", b"x")
    folder = write(tmp_path / "official", {"song_describer.csv": DESCRIBER})
    imported = import_tracks(DATASETS["song_describer"], folder, "memory://bucket/audio")
    (uri,) = imported.table["uri"].to_pylist()
    with fsspec.open(uri, "rb") as file:
        assert file.read() == b"x"
    assert len(imported.missing) == 1


def test_options_are_the_readers_own(tmp_path):
    for dataset in DATASETS.values():
        assert all(type(default) in (bool, int, str) for default in dataset.defaults().values())
    parse = DATASETS["magnatagatune"].parse_options
    assert parse(["top=50", "drop_untagged", "synonyms=a.json"]) == {
        "top": 50, "drop_untagged": True, "synonyms": "a.json"
    }  # fmt: skip
    assert DATASETS["fma"].parse_options(["subset=small"]) == {"subset": "small"}
    for pairs, sentence in (
        (["tops=3"], "magnatagatune has no option 'tops'; it has: top, drop_untagged, synonyms"),
        (["top=x"], "option top takes a whole number, got 'x'"),
        (["drop_untagged=maybe"], "option drop_untagged takes true or false, got 'maybe'"),
    ):
        with pytest.raises(UserError, match=sentence):
            parse(pairs)
    assert find_dataset("MTG-Jamendo") is DATASETS["mtg_jamendo"]
    with pytest.raises(UserError, match="there is no data set 'gtzan'; there are: audioset, "):
        find_dataset("gtzan")


def test_a_recording_has_one_id():
    assert recording_id("jamendo", "track_0000948") == recording_id("jamendo", "948") == "jamendo:948"
    assert recording_id("mtat", "f/a-b-01-c-0-29.mp3") == recording_id("mtat", "mtat:a-b-01-c-0-29")
    assert recording_id("youtube", "-Ab") != recording_id("youtube", "-ab")
