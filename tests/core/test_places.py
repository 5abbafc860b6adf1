"""Paths as other machines write them: named, mapped, or found as the disk spells them."""

import json
import unicodedata

import pytest

from mulan_core.config import PrepareConfig
from mulan_core.data.check import check_manifest
from mulan_core.data.places import parse_moves
from mulan_core.data.tracks import open_manifest, read_manifest
from mulan_core.data.uris import locate, root_of
from mulan_core.errors import UserError


def table_of(folder, *uris):
    path = folder / "m.jsonl"
    path.write_text("\n".join(json.dumps({"uri": uri}) for uri in uris))
    return path


def places_of(path, **options):
    with open_manifest(path, **options) as manifest:
        return [locate(uri, manifest.root) for batch in manifest.batches for uri in batch["uri"].to_pylist()]


WINDOWS = [r"C:\Music\a.wav", "c:/Music/a.wav", r"C:\Music/a.wav", "file:///C:/Music/a.wav", "file:/C:/Music/a.wav"]


@pytest.mark.parametrize("uri", [*WINDOWS, "file://localhost/C:/Music/a.wav", r"\\nas\Music\a.wav"])
@pytest.mark.parametrize("outside", [True, False])
def test_a_windows_path_is_named_with_what_to_do(tmp_path, uri, outside):
    with pytest.raises(UserError) as error, open_manifest(table_of(tmp_path, uri), allow_outside=outside) as manifest:
        list(manifest.batches)
    assert "row 1, column 'uri': " in str(error.value) and "looks like a Windows path" in str(error.value)
    folder = r"\\nas\Music" if "nas" in uri else r"c:\Music" if uri[0] == "c" else r"C:\Music"
    assert str(error.value).endswith(f"--map '{folder}=/FOLDER'")


@pytest.mark.parametrize(
    ("uri", "old"),
    [
        *((uri, r"C:\Music") for uri in WINDOWS),
        *((uri, "c:/music/") for uri in WINDOWS),
        (r"D:\x\a.wav", r"D:\x"),
        ("E:/a.wav", "E:"),
        (r"\\nas\Music\a.wav", r"\\nas\Music"),
        ("file://localhost/Users/ann/M%C3%BCsik/a.wav", "/Users/ann/Müsik"),
        ("/Users/ann/Mu\u0308sik/a.wav", "/Users/ann/M\u00fcsik"),
        ("https://old.example/music/a.wav", "https://old.example/music"),
        ("Music/a.wav", "Music"),
    ],
)
def test_a_folder_of_elsewhere_is_mapped_and_may_lie_outside(tmp_path, uri, old):
    here, table = tmp_path / "here", tmp_path / "tables"
    here.mkdir()
    table.mkdir()
    path = table_of(table, uri)
    moved = parse_moves([f"{old}={here}"])
    assert places_of(path, allow_outside=False, moved=moved) == [str(here / "a.wav")]


def test_a_mapped_folder_opens_itself_alone(tmp_path):
    here, table = tmp_path / "here", tmp_path / "tables"
    here.mkdir()
    table.mkdir()
    path = table_of(table, r"C:\Music\..\secret.wav", r"C:\Music\b.wav", r"C:\Musicals\c.wav", "../here2/d.wav")
    report = check_manifest(path, PrepareConfig(moved={r"C:\Music": str(here)}))
    assert [row["row"] for row in report["bad_rows"]] == [1, 3, 4]
    assert "lies outside" in report["bad_rows"][0]["problems"][0]
    assert "looks like a Windows path" in report["bad_rows"][1]["problems"][0]


def test_ids_follow_from_what_the_table_says(tmp_path):
    path = table_of(tmp_path, r"C:\Music\a.wav", "b.wav")
    with open_manifest(path, moved={r"C:\Music": str(tmp_path)}) as manifest:
        here = [row for batch in manifest.batches for row in batch.to_pylist()]
    with open_manifest(path, moved={r"C:\Music": "s3://bucket/music"}) as manifest:
        there = [row for batch in manifest.batches for row in batch.to_pylist()]
    assert [row["track_id"] for row in here] == [row["track_id"] for row in there]
    assert there[0]["uri"] == "s3://bucket/music/a.wav"


FORMS = ("NFC", "NFD")


@pytest.mark.parametrize("typed", FORMS)
@pytest.mark.parametrize("folder", FORMS)
@pytest.mark.parametrize("file", FORMS)
def test_a_name_is_found_however_the_disk_spells_it(tmp_path, typed, folder, file):
    place = tmp_path / unicodedata.normalize(folder, "Café") / unicodedata.normalize(file, "Ångström ガ.wav")
    place.parent.mkdir()
    place.touch()
    uri = unicodedata.normalize(typed, "Café/Ångström ガ.wav")
    path = table_of(tmp_path, uri, f"{tmp_path}/{uri}", f"file:{tmp_path}/{uri}", uri.replace("/", "\\"))
    assert places_of(path) == [str(place)] * 4
    ids = read_manifest(path)["track_id"].to_pylist()
    assert len(set(ids)) == 4


def test_both_forms_side_by_side_are_two_files_and_what_is_not_there_stays_as_it_is(tmp_path):
    names = [unicodedata.normalize(form, "é.wav") for form in FORMS]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "odd\\name.wav").touch()
    uris = [*names, "ü.wav", "ü/x.wav", "odd\\name.wav", "no\\thing.wav"]
    assert read_manifest(table_of(tmp_path, *uris))["uri"].to_pylist() == uris


def test_file_with_one_slash_is_a_path(tmp_path):
    (tmp_path / "a b.wav").touch()
    assert places_of(table_of(tmp_path, f"file:{tmp_path}/a%20b.wav")) == [str(tmp_path / "a b.wav")]


@pytest.mark.parametrize("uri", ["/Volumes/Disk/Music/a.wav", "file:///Users/ann/Music/a.wav"])
def test_a_folder_of_another_machine_is_said(tmp_path, uri):
    path = table_of(tmp_path, uri)
    top = "/Volumes" if "Volumes" in uri else "/Users"
    said = (
        f"there is no folder {top} here: if the table is of another machine, say where it lies: --map '{top}=/FOLDER'"
    )
    with pytest.raises(UserError) as error, open_manifest(path, allow_outside=False) as manifest:
        list(manifest.batches)
    assert said in str(error.value)
    (missing,) = check_manifest(path, PrepareConfig(), allow_outside=True)["bad_files"]
    assert missing["reason"] == "missing" and said in missing["detail"]


@pytest.mark.parametrize("value", ["C:\\Music", "=/music", "C:\\Music=", "/a=/there/is/no/such/folder"])
def test_a_map_that_is_none_is_said(value):
    with pytest.raises(UserError, match=r"--map .*(is not FROM=TO|there is no folder)"):
        parse_moves([value])


def test_a_relative_place_is_of_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "music").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse_moves(["/old=music"]) == {"/old": root_of(tmp_path / "music")}
