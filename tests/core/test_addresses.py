"""What a table names is asked at public addresses alone: as it is spelt, after DNS, and behind redirects."""

import http.server
import ipaddress
import json
import socket
import threading
from contextlib import contextmanager, suppress
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mulan_core.config import PrepareConfig
from mulan_core.data.addresses import PrivateAddressError, kind_of
from mulan_core.data.check import check_manifest
from mulan_core.data.clips import fetch_clip
from mulan_core.data.tracks import read_manifest
from mulan_core.data.uris import fingerprints, open_uri, why_refused
from mulan_core.errors import UserError

PUBLIC = "93.184.215.14"
"""Stands for somebody's server. In these tests connections to it end at the local one."""

V4 = st.one_of(
    st.ip_addresses(v=4),
    *(
        st.ip_addresses(network=network)
        for network in (
            "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10",
            "0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4", "8.8.0.0/16",
        )
    ),
)  # fmt: skip


def is_public(address):
    """As the standard library tells it; it calls some multicast and reserved addresses global."""
    odd = address.is_multicast or address.is_reserved or getattr(address, "is_site_local", False)
    return address.is_global and not (odd or address.is_private or address.is_loopback or address.is_link_local)


def spellings(address):
    number, parts = int(address), address.packed
    yield from (str(address), str(number), hex(number), f"0{number:o}", ".".join(map(hex, parts)))
    yield ".".join(f"0{part:o}" for part in parts)
    yield f"{parts[0]}.{number & 0xFFFFFF}"
    yield f"{parts[0]}.{parts[1]}.{number & 0xFFFF}"
    yield f"{address}."
    yield str(address).translate({ord("0") + digit: 0xFF10 + digit for digit in range(10)})  # of full width
    yield from (f"[{inner}]" for inner in inside(address))


def inside(address):
    """IPv6 addresses that end at this one."""
    yield ipaddress.IPv6Address(f"::ffff:{address}")
    yield ipaddress.IPv6Address(f"64:ff9b::{address}")
    yield ipaddress.IPv6Address((0x2002 << 112) | (int(address) << 80) | 1)


def refused(uri, root="/music"):
    return why_refused(uri, root, allow_outside=False, allow_private=False)


@given(V4)
def test_an_ipv4_address_is_public_as_the_standard_library_says_also_inside_ipv6(address):
    assert (kind_of(address) is None) == is_public(address)
    for inner in inside(address):
        assert kind_of(inner) == kind_of(address)


@given(st.ip_addresses(v=6))
def test_an_ipv6_address_that_stands_for_itself_is_public_as_the_standard_library_says(address):
    if not any(address in ipaddress.ip_network(network) for network in ("2002::/16", "::ffff:0:0/96", "64:ff9b::/96")):
        assert (kind_of(address) is None) == is_public(address)


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.9.9.9", "loopback"), ("::1", "loopback"), ("169.254.169.254", "link-local"), ("fe80::1", "link-local"),
        ("10.0.0.1", "private"), ("172.31.0.1", "private"), ("192.168.1.1", "private"), ("fd00:ec2::254", "private"),
        ("100.64.0.1", "shared"), ("0.0.0.0", "unspecified"), ("::", "unspecified"), ("239.1.1.1", "multicast"),
        ("ff02::1", "multicast"), ("255.255.255.255", "reserved"), ("198.18.0.1", "reserved"), ("fec0::1", "reserved"),
        ("::127.0.0.1", "reserved"), ("2001:0:7f00:1::1", "reserved"), ("64:ff9b:1::7f00:1", "reserved"),
    ],
)  # fmt: skip
def test_each_kind_has_its_word(address, kind):
    assert kind in kind_of(ipaddress.ip_address(address))


@given(V4, st.sampled_from(["http", "https", "HTTP", "hTTps"]), st.sampled_from(["", "me@", "a:b@", "8.8.8.8@"]))
def test_however_a_table_spells_an_address_it_is_found(address, scheme, user):
    for host in spellings(address):
        for port in ("", ":80", ":8000"):
            said = refused(f"{scheme}://{user}{host}{port}/a.wav")
            assert (said is None) == is_public(address), (host, said)
            if said:
                assert "prepare.allow_private" in said and "\n" not in said
            assert (
                why_refused(f"{scheme}://{user}{host}{port}/a.wav", "/", allow_outside=False, allow_private=True)
                is None
            )


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "localhost.", "a.localhost", "x@localhost", "[::1]", "[fe80::1%25eth0]:9"]
)
def test_names_of_this_machine_are_found(host):
    assert "prepare.allow_private" in refused(f"http://{host}/a.wav")


def test_what_lies_beside_a_private_table_is_named_by_the_table():
    assert "names 10.0.0.5, a private address" in refused("a.wav", "http://10.0.0.5/music")
    assert refused("a.wav", "https://music.example/2026") is None


def test_urls_that_are_none_are_refused():
    for uri in ("http:///a.wav", "http://[::1/a.wav", "https://"):
        assert refused(uri), uri
    assert "lies outside" in refused("FILE:///etc/passwd") and "lies outside" in refused("file://localhost/etc/passwd")


def test_a_bucket_s_url_chooses_a_bucket_and_nothing_else():
    assert refused("s3://bucket/a.wav") is None and refused("S3://bucket/a.wav") is None
    for uri in ("s3://bucket/x::file:///etc/passwd", "simplecache::http://127.0.0.1/x"):
        assert refused(uri), uri
    assert refused("az://container/a.wav") is None
    for uri in ("az://box@evil.blob.core.windows.net/a.wav", "az://evil.dfs.core.windows.net/box/a.wav"):
        assert "names an account" in refused(uri)
    assert "'::'" in refused("x::y.wav", "s3://bucket/music") and refused("x::y.wav") is None
    assert refused("[2606:4700::1111].wav") is None
    assert refused("http://[2606:4700::1111]/a.wav") is None


@pytest.fixture
def server():
    """A server on loopback that counts what it is asked, and redirects /to/URL there."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path.startswith("/to/"):
                self.send_response(302)
                self.send_header("Location", unquote(self.path.removeprefix("/to/")))
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.send_header("ETag", '"1"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(b"audio")

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=serving.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield serving.server_port, asked
    finally:
        serving.shutdown()


@pytest.fixture
def internet(monkeypatch, server):
    """Names with addresses as the test says, and ``PUBLIC`` at the local server; both below all libraries."""
    names, connected = {}, []
    look_up, connect = socket.getaddrinfo, socket.socket.connect

    def getaddrinfo(host, port, *args, **options):
        if host in names:
            found = names[host].pop(0) if isinstance(names[host][0], list) else names[host]
            host = [socket.AF_INET, socket.AF_INET6]
            return [
                (
                    host[":" in one],
                    socket.SOCK_STREAM,
                    socket.IPPROTO_TCP,
                    "",
                    (one, port, 0, 0)[: 4 if ":" in one else 2],
                )
                for one in found
            ]
        return look_up(host, port, *args, **options)

    def to(self, place):
        connected.append(place[0])
        return connect(self, ("127.0.0.1", server[0]) if place[0] == PUBLIC else place)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket.socket, "connect", to)
    return names, connected


@contextmanager
def refusal(*words):
    with pytest.raises(PrivateAddressError) as error:
        yield
    for word in (*words, "prepare.allow_private"):
        assert word in str(error.value), error.value
    assert "\n" not in str(error.value)


def read(uri, *, allow_private=False):
    with open_uri(uri, allow_private=allow_private) as file:
        return file.read()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "me@127.1"])
def test_loopback_is_asked_only_where_that_is_allowed(server, host):
    port, asked = server
    with refusal("this machine" if host == "localhost" else "loopback"):
        read(f"http://{host}:{port}/a.wav")
    assert fingerprints([f"http://{host}:{port}/a.wav"], allow_private=False) == [None]
    assert asked == []
    if host in ("127.0.0.1", "localhost"):  # aiohttp itself takes none of the other spellings
        assert read(f"http://{host}:{port}/a.wav", allow_private=True) == b"audio"


def test_a_name_is_judged_by_its_addresses(server, internet):
    names, connected = internet
    names["inside.example"] = ["10.1.2.3"]
    names["both.example"] = ["10.1.2.3", "::1", PUBLIC]
    names["metadata.example"] = ["fd00:ec2::254", "169.254.169.254"]
    with refusal("inside.example is at 10.1.2.3, a private address"):
        read("http://inside.example/a.wav")
    with refusal("metadata.example is at"):
        read("https://metadata.example/latest")
    assert connected == []
    assert read("http://both.example/a.wav") == b"audio", "asked at its public address"
    assert set(connected) == {PUBLIC}


def test_a_name_that_changes_its_mind_is_asked_where_it_was_judged(server, internet):
    names, connected = internet
    for last in range(20):
        names[f"rebinding{last}.example"] = [[PUBLIC], ["127.0.0.1"], ["169.254.169.254"]] * 3
        with suppress(PrivateAddressError):
            read(f"http://rebinding{last}.example/a.wav")
    assert set(connected) == {PUBLIC}


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:{port}/secret",
        "http://169.254.169.254/latest",
        "http://0.0.0.0/x",
        "http://[::1]:{port}/x",
        "http://localhost:{port}/x",
        "//127.0.0.1:{port}/secret",
    ],
)
def test_a_redirect_is_a_door_like_any_other(server, internet, target):
    port, asked = server
    names, connected = internet
    names["public.example"] = [PUBLIC]
    target = quote(target.format(port=port), safe="")
    with refusal():
        read(f"http://public.example/to/{target}")
    names["twice.example"] = [PUBLIC]
    with refusal():
        read(f"http://twice.example/to/http://public.example/to/{quote(target)}")
    assert set(connected) == {PUBLIC} and not [path for path in asked if not path.startswith("/to/")]
    assert read("http://public.example/to/http://twice.example/a.wav") == b"audio"


@pytest.mark.parametrize(
    "target", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x", "s3://bucket/x", "http://0/x", "http://127.1/x"]
)
@pytest.mark.parametrize("allow_private", [True, False])
def test_a_redirect_leads_to_no_other_protocol_or_odd_spelling(server, target, internet, allow_private):
    internet[0]["other.example"] = [PUBLIC]
    with pytest.raises(OSError):
        read(f"http://other.example/to/{target}", allow_private=allow_private)
    assert set(internet[1]) == {PUBLIC}


def test_proxies_of_the_environment_are_not_asked(server, internet, monkeypatch):
    port, asked = server
    internet[0]["proxied.example"] = [PUBLIC]
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    assert read("http://proxied.example/a.wav") == b"audio"
    assert set(asked) == {"/a.wav"} and set(internet[1]) == {PUBLIC}


@pytest.mark.parametrize(
    "bucket",
    ["127.0.0.1", "127.0.0.1:80", "evil.example", "me@evil.example", "169.254.169.254", "..", "a?endpoint_url=x"],
)
def test_a_bucket_is_asked_of_the_endpoint_that_the_user_has_configured(internet, monkeypatch, bucket):
    s3fs = pytest.importorskip("s3fs")
    internet[0]["endpoint.example"] = [PUBLIC]
    settings = {
        "ENDPOINT_URL": "http://endpoint.example",
        "ACCESS_KEY_ID": "k",
        "SECRET_ACCESS_KEY": "s",
        "REGION": "r",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    s3fs.S3FileSystem.clear_instance_cache()
    with suppress(OSError):
        read(f"s3://{bucket}/a.wav")
    s3fs.S3FileSystem.clear_instance_cache()
    assert set(internet[1]) <= {PUBLIC}


def write_table(folder, *uris):
    table = folder / "tracks.jsonl"
    table.write_text(
        "".join(json.dumps({"track_id": str(i), "uri": uri, "text": "x"}) + "\n" for i, uri in enumerate(uris))
    )
    return table


def test_check_tells_addresses_by_row_and_names_by_file(server, internet, tmp_path):
    port, _ = server
    internet[0].update({"inside.example": ["192.168.0.7"], "outside.example": [PUBLIC]})
    inside, outside = "http://inside.example/a.wav", "http://outside.example/a.wav"
    table = write_table(tmp_path, f"http://127.0.0.1:{port}/a.wav", inside, outside, f"{outside}?/to/http://10.0.0.1")
    report = check_manifest(table, PrepareConfig())
    assert [row["row"] for row in report["bad_rows"]] == [1]
    (said,) = report["bad_rows"][0]["problems"]
    assert "127.0.0.1, a loopback address; allow it with prepare.allow_private: true in the file of --params" in said
    (bad,) = report["bad_files"]
    assert (bad["track_id"], bad["reason"]) == ("1", "refused")
    assert "inside.example is at 192.168.0.7, a private address; allow it with prepare.allow_private" in bad["detail"]
    assert "10.0.0.1" not in internet[1] and report["usable"] == 2
    del internet[0]["inside.example"]
    allowed = check_manifest(write_table(tmp_path, f"http://127.0.0.1:{port}/a.wav"), PrepareConfig(allow_private=True))
    assert allowed["bad_rows"] == allowed["bad_files"] == []


def test_a_table_is_refused_with_row_host_reason_and_remedy(tmp_path):
    with pytest.raises(UserError) as error:
        read_manifest(write_table(tmp_path, "http://8.8.8.8/a", "http://me@169.254.169.254/x"), allow_private=False)
    assert str(error.value).endswith(
        "tracks.jsonl, row 2, column 'uri': 'http://***@169.254.169.254/x' names 169.254.169.254, a link-local "
        "address; allow it with prepare.allow_private: true in the file of --params, or in params.yaml where you give "
        "no --manifest"
    )


def test_a_table_that_the_user_names_may_be_anywhere(server, tmp_path):
    """What it names may not."""
    folder = tmp_path / "served"
    folder.mkdir()
    write_table(folder, "a.wav")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *_):
            pass

    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=serving.serve_forever, args=(0.02,), daemon=True).start()
    address = f"http://127.0.0.1:{serving.server_port}/tracks.jsonl"
    assert read_manifest(address, allow_private=True)["uri"].to_pylist() == ["a.wav"]
    with pytest.raises(UserError, match=r"row 1, column 'uri': 'a.wav' names 127.0.0.1, a loopback address"):
        read_manifest(address, allow_private=False)
    serving.shutdown()


def test_prepare_puts_aside_what_dns_or_a_redirect_leads_inside(server, internet, tmp_path):
    port, asked = server
    internet[0].update({"within.example": ["100.100.1.1"], "away.example": [PUBLIC]})
    row = dict.fromkeys(("shard", "track_id", "start_s", "duration_s", "mark", "known"))
    for uri in ("http://within.example/a.wav", f"http://away.example/to/http://127.0.0.1:{port}/secret"):
        outcome = fetch_clip(row | {"uri": uri}, PrepareConfig(), tmp_path)
        assert (outcome["reason"], outcome["data"]) == ("refused", None)
        assert "prepare.allow_private" in outcome["detail"] and uri in outcome["detail"]
    assert "/secret" not in asked
    taken = fetch_clip(
        row | {"uri": f"http://away.example/to/http://127.0.0.1:{port}/a"}, PrepareConfig(allow_private=True), tmp_path
    )
    assert (taken["reason"], taken["data"]) == (None, b"audio")
