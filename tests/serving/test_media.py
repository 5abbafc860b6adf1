"""What Range and the preconditions of a file come to, against a plain restatement of RFC 9110."""

import os
import re
from email.utils import formatdate, parsedate_to_datetime
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from serving_fixtures import check_error
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from serving.errors import install_handlers
from serving.media import MAX_RANGES, PageFiles, SentFile, satisfiable_ranges

DATA = bytes(range(256)) * 4 + b"end"  # 1,027 bytes
NUMBERS = st.integers(0, 1_100) | st.sampled_from([0, 1, 1_026, 1_027, 1_028, 10**12, 10**40])
SPACE = st.sampled_from(["", " ", "\t", "  "])
ONE = st.one_of(
    st.tuples(NUMBERS, NUMBERS).map(lambda pair: f"{min(pair)}-{max(pair)}"),
    NUMBERS.map(lambda first: f"{first}-"),
    NUMBERS.map(lambda last: f"-{last}"),
)
LIST = st.lists(st.tuples(SPACE, ONE | st.just(""), SPACE).map("".join), min_size=1, max_size=5).map(",".join)
WRONG = st.sampled_from(["5-3", "a-b", "1", "-", "--1", "+1-2", "1_0-2", "0x1-2", "1-2-3", "1 - 2", "١-٢", ""])
HEADERS = st.one_of(
    st.tuples(st.sampled_from(["bytes=", "Bytes=", "BYTES="]), LIST).map("".join),
    st.tuples(st.just("bytes="), LIST, st.just(","), WRONG).map("".join),
    st.tuples(st.sampled_from(["lines=", "bytes", "bytes =", "", "bytes:", "byte=", "none="]), LIST).map("".join),
    st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=20),
)


def restated(header, size):
    """Section 14, byte by byte: "all" where the header is to be ignored, else the wanted positions that exist."""
    unit, equals, rest = header.partition("=")
    if unit.lower() != "bytes" or not equals:
        return "all"
    wanted, count = set(), 0
    for spec in (part.strip(" \t") for part in rest.split(",")):
        if not spec:
            continue
        count += 1
        if re.fullmatch("[0-9]+-[0-9]+", spec):
            first, last = map(int, spec.split("-"))
            if last < first:
                return "all"
            wanted |= set(range(first, min(last, size - 1) + 1))
        elif re.fullmatch("[0-9]+-", spec):
            wanted |= set(range(int(spec[:-1]), size))
        elif re.fullmatch("-[0-9]+", spec):
            wanted |= set(range(max(0, size - int(spec[1:])), size))
            if size == 0 and int(spec[1:]):
                return "all"
        else:
            return "all"
    return wanted if count else "all"


@settings(max_examples=400, deadline=None)
@given(header=HEADERS, size=st.sampled_from([0, 1, 10, 1_027]))
@example("bytes=0-10,99999999-", 100)
@example("bytes=-500", 100)
@example("bytes=0-999999", 100)
@example("bytes=-0", 100)
@example("bytes=0-", 0)
@example("bytes=-5", 0)
@example("bytes=9-2", 100)
@example("bytes=0-0,-1", 100)
def test_ranges_are_read_as_the_rfc_says(header, size):
    wanted, found = restated(header, size), satisfiable_ranges(header, size)
    if wanted == "all":
        assert found == []
    elif not wanted:
        assert found is None
    else:
        assert found and [at for start, end in found for at in range(start, end)] == sorted(wanted)
        assert all(one[1] < other[0] for one, other in pairwise(found)), "no two that touch"


def test_numbers_without_end_are_ignored():
    for header in ("bytes=0-" + "9" * 5_000, "bytes=" + "9" * 5_000 + "-", "bytes=-" + "9" * 5_000):
        assert satisfiable_ranges(header, 100) == []


def test_more_parts_than_anyone_needs_are_the_whole():
    assert (
        len(satisfiable_ranges("bytes=" + ",".join(f"{2 * i}-{2 * i}" for i in range(MAX_RANGES)), 1_000)) == MAX_RANGES
    )
    assert satisfiable_ranges("bytes=" + ",".join(f"{2 * i}-{2 * i}" for i in range(MAX_RANGES + 1)), 1_000) == []


@pytest.fixture(scope="module")
def player(tmp_path_factory):
    """A client of an application that sends one file, an empty one at /empty."""
    folder = tmp_path_factory.mktemp("media")
    for name, data in (("song", DATA), ("empty", b"")):
        (folder / name).write_bytes(data)
        os.utime(folder / name, (1_700_000_000.5, 1_700_000_000.5))

    async def play(request):
        return SentFile(folder / request.path_params["name"], media_type="audio/wav")

    page = Mount("/page", PageFiles(directory=folder))
    application = Starlette(routes=[page, Route("/{name}", play, methods=["GET", "HEAD"])])
    install_handlers(application)
    return TestClient(application)


def parts(answer):
    """The parts of an answer as (start, bytes)."""
    found = re.fullmatch(r"multipart/byteranges; boundary=(\w+)", answer.headers["content-type"])
    if not found:
        start, end, size = map(int, re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers["content-range"]).groups())
        assert end - start + 1 == len(answer.content) and size == len(DATA)
        return [(start, answer.content)]
    assert "content-range" not in answer.headers
    pieces = answer.content.split(f"--{found[1]}".encode())
    assert (pieces[0], pieces[-1].strip()) == (b"", b"--")
    out = []
    for piece in pieces[1:-1]:
        head, _, body = piece.partition(b"\r\n\r\n")
        start, end, size = map(int, re.search(rb"Content-Range: bytes (\d+)-(\d+)/(\d+)", head).groups())
        body = body.removesuffix(b"\r\n")
        assert b"Content-Type: audio/wav" in head and end - start + 1 == len(body) and size == len(DATA)
        out.append((start, body))
    return out


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=HEADERS)
@example("bytes=0-10,99999999-")
@example("bytes=0-4,10-14,-3")
def test_the_file_is_sent_in_the_parts_that_were_asked_for(player, header):
    header = header.strip().encode("latin-1", "ignore").decode("latin-1")
    answer = player.get("/song", headers={"Range": header.encode("latin-1")})
    wanted = restated(header, len(DATA))
    assert answer.headers.get("content-length") == str(len(answer.content))
    if wanted == "all":
        assert (answer.status_code, answer.content) == (200, DATA)
        assert answer.headers["accept-ranges"] == "bytes" and "content-range" not in answer.headers
    elif not wanted:
        check_error(answer, 416, "no_such_part")
        assert answer.headers["content-range"] == f"bytes */{len(DATA)}"
    else:
        assert answer.status_code == 206
        got = parts(answer)
        assert sorted(wanted) == [at for start, body in got for at in range(start, start + len(body))]
        assert all(DATA[start : start + len(body)] == body for start, body in got)
        assert (len(got) == 1) is (not answer.headers["content-type"].startswith("multipart/"))
    head = player.head("/song", headers={"Range": header.encode("latin-1")})
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(DATA))), "Range is for GET alone"


@pytest.mark.parametrize(
    "headers",
    [
        *(
            {"Range": text}
            for text in ("bytes=0-9", "bytes=0-4,10-14", "bytes=99999-", "lines=1", "bytes=x", "bytes=9-2")
        ),
        *({"If-Match": '"x"'}, {"If-None-Match": "*"}, {"If-Modified-Since": formatdate(usegmt=True)}, {}),
    ],
)
def test_files_of_a_page_are_sent_as_audio_is(player, headers):
    for ask in (player.get, player.head):
        page, audio = ask("/page/song", headers=headers), ask("/song", headers=headers)
        assert page.status_code == audio.status_code
        if page.status_code >= 400 and ask == player.get:
            check_error(page, audio.status_code, audio.json()["error"]["code"])
        for name in ("content-range", "etag", "last-modified", "content-length"):
            assert "multipart" in page.headers.get("content-type", "") or page.headers.get(name) == audio.headers.get(
                name
            )


def test_two_lines_of_range_are_no_range(player):
    answer = player.get("/song", headers=[("Range", "bytes=0-1"), ("Range", "bytes=4-5")])
    assert (answer.status_code, answer.content) == (200, DATA)


def test_an_empty_file(player):
    assert (player.get("/empty").status_code, player.get("/empty").content) == (200, b"")
    assert player.get("/empty", headers={"Range": "bytes=-5"}).status_code == 200
    answer = player.get("/empty", headers={"Range": "bytes=0-"})
    check_error(answer, 416, "no_such_part")
    assert answer.headers["content-range"] == "bytes */0"


def test_a_range_of_another_version_is_the_whole(player):
    """If-Range: by a strong tag or the exact date."""
    file = player.head("/song").headers
    before = formatdate(parsedate_to_datetime(file["last-modified"]).timestamp() - 5, usegmt=True)
    for condition, status in (
        (file["etag"], 206),
        (file["last-modified"], 206),
        (f"W/{file['etag']}", 200),
        ('"other"', 200),
        (before, 200),
        (formatdate(usegmt=True), 200),
        ("", 200),
        ("*", 200),
    ):
        answer = player.get("/song", headers={"Range": "bytes=1-3", "If-Range": condition})
        assert answer.status_code == status, condition
        assert answer.content == (DATA[1:4] if status == 206 else DATA)


def test_preconditions(player):
    """Section 13.2.2: If-Match before If-Unmodified-Since, then If-None-Match before If-Modified-Since, then Range."""
    file = player.head("/song").headers
    tag, date = file["etag"], file["last-modified"]
    at = parsedate_to_datetime(date).timestamp()
    older, newer = (formatdate(at + by, usegmt=True) for by in (-60, 60))
    for headers, status in (
        ({"If-None-Match": tag}, 304),
        ({"If-None-Match": f'"x", W/{tag}'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"x"'}, 200),
        ({"If-None-Match": '"x"', "If-Modified-Since": newer}, 200),
        ({"If-Modified-Since": date}, 304),
        ({"If-Modified-Since": newer}, 304),
        ({"If-Modified-Since": older}, 200),
        ({"If-Modified-Since": "yesterday"}, 200),
        ({"If-Match": tag}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": f"W/{tag}"}, 412),
        ({"If-Match": '"x"'}, 412),
        ({"If-Match": tag, "If-Unmodified-Since": older}, 200),
        ({"If-Unmodified-Since": date}, 200),
        ({"If-Unmodified-Since": older}, 412),
        ({"If-None-Match": tag, "Range": "bytes=0-1"}, 304),
        ({"If-Match": tag, "Range": "bytes=0-1"}, 206),
        ({"If-Match": '"x"', "Range": "bytes=9999-"}, 412),
    ):
        for ask in (player.get, player.head):
            answer = ask("/song", headers=headers)
            expected = 200 if ask == player.head and status == 206 else status
            assert answer.status_code == expected, headers
            if status == 304:
                assert (answer.content, answer.headers["etag"]) == (b"", tag)
