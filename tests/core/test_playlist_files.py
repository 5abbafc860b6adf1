"""Playlists of players: every format gives the same, and their songs are found among the tracks."""

import json
import plistlib
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulan_core.config import PrepareConfig
from mulan_core.data.check import check_manifest
from mulan_core.data.playlist_files import READERS, read_playlist_files
from mulan_core.data.playlist_match import add_titles, match_playlists, notes_of_playlists
from mulan_core.errors import UserError


def track(track_id, uri, title=None, artist=None):
    return {"track_id": track_id, "uri": uri, "title": title, "artist": artist}


CATALOGUE = [
    track("blue", "/music/Ann/First/01 Blue.flac", "Blue", "Ann"),
    track("red", "/music/Ann/First/02 Réd & <green>.flac", "Réd", "Ann"),
    track("other", "/music/Bob/First/01 Blue.flac", "Blue", "Bob"),
    track("hash", "/music/Bob/100% #1.mp3", "Number One", "Bob"),
]


def as_url(path):
    return "file://" + quote(path)


def as_m3u(title, tracks):
    lines = ["#EXTM3U", f"#PLAYLIST:{title}", "# a comment"]
    for row in tracks:
        lines += [f"#EXTINF:12,{row['artist']} - {row['title']}", row["uri"]]
    return "\r\n".join(lines).encode()


def as_pls(title, tracks):
    lines = ["[playlist]", f"X-GNOME-Title={title}"]
    for number, row in enumerate(tracks, start=1):
        lines += [f"File{number}={as_url(row['uri'])}", f"Title{number}={row['title']}"]
    return "\n".join([*lines, f"NumberOfEntries={len(tracks)}", "Version=2"]).encode()


def as_xspf(title, tracks):
    items = "".join(
        f"<track><location>{as_url(row['uri'])}</location><title>{escape(row['title'])}</title></track>"
        for row in tracks
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><playlist version="1" xmlns="http://xspf.org/ns/0/">'
        f"<title>{escape(title)}</title><trackList>{items}</trackList></playlist>"
    ).encode()


def as_jspf(title, tracks):
    items = [{"location": [as_url(row["uri"])], "title": row["title"], "creator": row["artist"]} for row in tracks]
    return json.dumps({"playlist": {"title": title, "track": items}}).encode()


def as_itunes(title, tracks):
    known = {
        str(n): {"Track ID": n, "Name": row["title"], "Artist": row["artist"], "Location": as_url(row["uri"])}
        for n, row in enumerate(tracks)
    }
    items = [{"Track ID": n} for n in range(len(tracks))]
    lists = [{"Name": "Library", "Master": True, "Playlist Items": items}, {"Name": title, "Playlist Items": items}]
    return plistlib.dumps({"Tracks": known, "Playlists": lists})


def as_rekordbox(title, tracks):
    known = "".join(
        f'<TRACK TrackID="{n}" Name={quoteattr(row["title"])} Artist={quoteattr(row["artist"])} '
        f"Location={quoteattr('file://localhost' + quote(row['uri']))}/>"
        for n, row in enumerate(tracks)
    )
    keys = "".join(f'<TRACK Key="{n}"/>' for n in range(len(tracks)))
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><DJ_PLAYLISTS Version="1.0.0"><COLLECTION>{known}</COLLECTION>'
        f'<PLAYLISTS><NODE Type="0" Name="ROOT"><NODE Name={quoteattr(title)} Type="1" KeyType="0">{keys}</NODE>'
        "</NODE></PLAYLISTS></DJ_PLAYLISTS>"
    ).encode()


FORMATS = {
    "a.m3u": as_m3u,
    "a.m3u8": as_m3u,
    "a.pls": as_pls,
    "a.xspf": as_xspf,
    "a.jspf": as_jspf,
    "itunes.xml": as_itunes,
    "rekordbox.xml": as_rekordbox,
}


@settings(deadline=None, max_examples=25)
@given(
    title=st.text("abc äé日&<>'\"%#:", min_size=1, max_size=12).filter(lambda text: text.strip("# :\t") == text),
    chosen=st.lists(st.sampled_from(CATALOGUE), min_size=1, max_size=6),
)
def test_every_format_gives_the_same_playlists(tmp_path_factory, title, chosen):
    folder = tmp_path_factory.mktemp("lists")
    for name, write in FORMATS.items():
        (folder / name).write_bytes(write(title, chosen))
        (row,) = match_playlists(folder / name, CATALOGUE).rows
        assert row["title"] == title, name
        assert row["track_ids"] == list(dict.fromkeys(song["track_id"] for song in chosen)), name
    (row,) = match_playlists(folder, CATALOGUE).rows  # the same playlist in several formats is one
    assert row["title"] == title


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("/music/Ann/First/01 Blue.flac", "blue"),
        (r"C:\Users\ann\Music\Ann\First\01 Blue.flac", "blue"),
        (r"D:\BOB\first\01 BLUE.FLAC", "other"),
        ("file:///Volumes/Disk/Ann/First/01%20Blue.flac", "blue"),
        ("file://localhost/C:/Music/Bob/First/01%20Blue.flac", "other"),
        ("../music/Bob/100% #1.mp3", "hash"),
        ("Ann/First/02 Re\u0301d & <green>.flac", "red"),
        ("Ann/First/02%20R%C3%A9d%20&%20%3Cgreen%3E.flac", "red"),
        ("https://host/share/100%25%20%231.mp3?part=1", None),
        ("/elsewhere/01 Blue.flac", None),
        ("/elsewhere/Unknown/04.mp3", None),
    ],
)
def test_paths(tmp_path, line, found):
    (tmp_path / "a.m3u8").write_text(f"{line}\n/music/Ann/First/02 Réd & <green>.flac\n", encoding="utf-8")
    matched = match_playlists(tmp_path / "a.m3u8", CATALOGUE)
    (row,) = matched.rows
    assert row["track_ids"] == list(dict.fromkeys(filter(None, (found, "red"))))
    assert [song["song"] for song in matched.report["unmatched"]] == ([] if found else [line])


@pytest.mark.parametrize(
    ("title", "found"),
    [
        ("ANN - Blue", "blue"),
        ("Bob - Number  One!", "hash"),
        ("Ann - Red", "red"),
        ("Blue", None),
        ("Cecil - Blue", None),
    ],
)
def test_songs_that_lie_elsewhere_are_found_by_artist_and_title(tmp_path, title, found):
    (tmp_path / "a.m3u").write_text(f"#EXTINF:1,{title}\n/gone/x.mp3\n/music/Bob/100% #1.mp3")
    report = match_playlists(tmp_path / "a.m3u", CATALOGUE).report
    assert (report["by_path"], report["by_tags"], len(report["unmatched"])) == (1, int(bool(found)), int(not found))


def test_songs_of_one_file_are_told_by_their_titles(tmp_path):
    album = [track("one", "/m/album.flac", "One", "Ann"), track("two", "/m/album.flac", "Two", "Ann")]
    (tmp_path / "a.m3u").write_text("#EXTINF:1,Ann - Two\n/m/album.flac\n/m/album.flac\n")
    matched = match_playlists(tmp_path / "a.m3u", album)
    assert matched.rows[0]["track_ids"] == ["two"]
    assert matched.report["unmatched"][0]["reason"] == "several tracks match"


def test_relative_paths_start_at_the_playlist(tmp_path):
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "summer_mix.m3u").write_bytes("caf\u00e9.mp3\r..\\b.mp3\r".encode("cp1252"))
    tracks = [track("a", f"{folder}/cafe\u0301.mp3"), track("b", f"{tmp_path}/b.mp3"), track("c", "/x/b.mp3")]
    (row,) = match_playlists(folder, tracks).rows
    assert (row["title"], row["track_ids"]) == ("summer mix", ["a", "b"])


BOMB = b'<!DOCTYPE playlist [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><playlist><title>&b;</title></playlist>'


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.xspf", BOMB, "declares entities of its own"),
        ("a.xml", BOMB.replace(b"playlist", b"plist"), "declares entities of its own"),
        ("a.xml", b"<html/>", "its first element is 'html'"),
        ("a.xml", b"<plist><dict><key>a</key></plist>", "it is no XML"),
        ("a.xml", b"<plist><array/></plist>", "not as its program writes it"),
        ("a.jspf", b'{"playlist": []}', "it is no JSPF"),
        ("a.jspf", b"[" * 5000, "it is no JSPF"),
        ("a.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:4\n1.ts", "pieces of a stream"),
        ("a.m3u", b"# nothing\n", "holds no playlist with a song"),
        ("gone.pls", None, "there is no file"),
    ],
)
def test_a_file_that_is_no_playlist(tmp_path, name, content, reason):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=reason):
        read_playlist_files(tmp_path / name)


def test_no_bad_file_of_a_folder_stops_the_others(tmp_path):
    (tmp_path / "good.m3u").write_text(CATALOGUE[0]["uri"])
    (tmp_path / "bad.xspf").write_bytes(BOMB)
    (tmp_path / "notes.txt").write_text("no playlist")
    report = match_playlists(tmp_path, CATALOGUE).report
    assert report["unread"] == ["bad.xspf (it declares entities of its own, which no player writes)"]
    told = list(notes_of_playlists(report, 5))
    assert told[0] == "1 playlist; of 1 song there 1 were found by path, 0 by artist and title, 0 not"
    assert told[1:] == ["not read: bad.xspf (it declares entities of its own, which no player writes)"]


@settings(deadline=None, max_examples=40)
@given(name=st.sampled_from(sorted(READERS)), data=st.binary(max_size=200))
def test_any_bytes_are_songs_or_one_sentence(tmp_path_factory, name, data):
    path = Path(tmp_path_factory.mktemp("any")) / f"a{name}"
    path.write_bytes(data)
    try:
        playlists, _ = read_playlist_files(path)
        assert all(playlist.entries for playlist in playlists)
    except UserError as error:
        assert "\n" not in str(error)


def test_titles_are_queries_or_texts_and_never_both(tmp_path):
    for number in range(20):
        (tmp_path / f"mood {number}.m3u").write_text(CATALOGUE[0]["uri"])
    matched = match_playlists(tmp_path, CATALOGUE)
    queries = {row["title"] for row in matched.rows if row["split"] == "test"}
    texts = set(matched.titles["blue"])
    assert queries and texts and not queries & texts and len(queries | texts) == 20
    row = {"track_id": "blue", "split": "train", "texts": []}
    assert {text["text"] for text in add_titles(row, matched.titles)["texts"]} == texts
    assert add_titles(row | {"split": "test"}, matched.titles)["texts"] == []
    assert {row["split"] for row in match_playlists(tmp_path, CATALOGUE, split="test").rows} == {"test"}


def test_nothing_that_matches_is_a_mistake(tmp_path):
    (tmp_path / "a.m3u").write_text("/nowhere/song.mp3")
    with pytest.raises(UserError, match=r"no song in the playlists of .* is in the catalogue"):
        match_playlists(tmp_path / "a.m3u", CATALOGUE)


def test_titles_count_as_texts_before_any_work(tmp_path):
    (tmp_path / "t.csv").write_text("uri,track_id,split\na.wav,blue,train\n")
    assert check_manifest(tmp_path / "t.csv", PrepareConfig(), titles={"blue": ["Rainy evening"]})["rows"] == 1


SONGS = [
    track("love", "/m/Beatles/Love/01 - Intro.mp3", "Intro", "The Beatles"),
    track("wagner", "/m/Wagner/CD1/01.mp3", "Siegfried", "Wagner"),
    track("queen", "/m/Music/07.mp3", "Bohemian Rhapsody", "Queen"),
    track("money", "/m/Music/01.mp3", "Money", "ABBA"),
    track("ab", "/m/ab/9.mp3", "bacd", "Ab"),
]


@pytest.mark.parametrize(
    ("said", "path", "found"),
    [
        ("ABBA - Intro", "/old/ABBA/Gold/01 - Intro.mp3", None),
        ("The Beatles - Intro", "/old/ABBA/Gold/01 - Intro.mp3", "love"),
        ("ABBA - Waterloo", r"D:\rips\ABBA\CD1\01.mp3", None),
        ("Queen - Bohemian Rhapsody", "/old/Music/01.mp3", "queen"),
        ("Whoever - Whatever", "/m/Wagner/CD1/01.mp3", "wagner"),
        ("Abba - Cd", "/old/x.mp3", None),
    ],
)
def test_what_a_playlist_says_of_a_song_counts_against_half_a_path(tmp_path, said, path, found):
    (tmp_path / "a.m3u").write_text(f"#EXTM3U\n#EXTINF:200,{said}\n{path}\n/m/Music/01.mp3\n")
    (row,) = match_playlists(tmp_path / "a.m3u", SONGS).rows
    assert row["track_ids"] == [*([found] if found else []), "money"]


def test_half_a_letter_and_passwords_stop_nothing_and_are_not_told(tmp_path):
    playlist = {
        "title": "t",
        "annotation": "\ud800",
        "track": [{"location": [uri]} for uri in ("http://ann:hunter2@radio.example/x.mp3", SONGS[0]["uri"])]
        + [{"title": "\ud800 x"}],
    }
    (tmp_path / "a.jspf").write_text(json.dumps({"playlist": playlist}))
    matched = match_playlists(tmp_path / "a.jspf", SONGS)
    json.dumps(matched.report, ensure_ascii=False).encode()
    assert "hunter2" not in str(matched.report) and matched.rows[0]["description"] == "?"
