"""Whose pages may ask: Origin, Host and Sec-Fetch-Site, with keys, without and open; what a proxy may say of itself."""

import itertools
import re
from dataclasses import replace

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving_fixtures import SERVE, check_error, ids, run_bare
from starlette.datastructures import Headers

from serving.access import Access
from serving.app import create_api
from serving.errors import ApiError
from serving.keys import KeyFile
from serving.origins import is_same_site, parse_host
from serving.prefix import announced_prefix, put_before, without_prefix

LOCAL = ["127.0.0.1:8000", "localhost:8000", "LOCALHOST:8000", "[::1]:8000", "127.0.0.1", "mulan.localhost:8000"]
NAMES = [
    "radio.example",
    "radio.example:8000",
    "10.0.0.7:8000",
    "[fe80::1]:8000",
    "evil.example:8000",
    "",
    "[::1",
    "a:b",
]
ORIGINS = [
    *(
        None,
        "null",
        "",
        "https://evil.example",
        "http://evil.example:8000",
        "http://127.0.0.1:8000",
        "http://localhost:8000",
    ),
    *("http://[::1]:8000", "http://127.0.0.1:3000", "https://radio.example", "http://radio.example:8000", "file://"),
    *("http://127.0.0.1:8000.evil.example", "http://evil.example@127.0.0.1:8000", "chrome-extension://127.0.0.1:8000"),
    *("https://listed.example", "HTTPS://RADIO.EXAMPLE:443", "http://127.0.0.1:8000/", "127.0.0.1:8000"),
]
SITES = [None, "same-origin", "same-site", "cross-site", "none"]
SAME = {  # which Origins are a page of which Host, by hand
    "127.0.0.1:8000": {"http://127.0.0.1:8000"},
    "localhost:8000": {"http://localhost:8000"},
    "LOCALHOST:8000": {"http://localhost:8000"},
    "[::1]:8000": {"http://[::1]:8000"},
    "radio.example": {"https://radio.example", "HTTPS://RADIO.EXAMPLE:443"},
    "radio.example:8000": {"http://radio.example:8000"},
    "evil.example:8000": {"http://evil.example:8000"},
}


def status(access, method, path, **headers):
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items() if value is not None]
    try:
        access.admit(method, path, Headers(raw=raw))
    except ApiError as error:
        return error.status
    return 200


@pytest.mark.parametrize("mode", ["keyless", "open", "keys"])
@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/search"), ("GET", "/v1/map"), ("DELETE", "/v1/tracks/x")])
def test_no_foreign_page_gets_in(mode, method, path, tmp_path):
    """Each combination against the rule in words: without Origin, of the same name and port, listed, or, where the
    browser says so, of the same site. A keyless endpoint goes by names of this machine besides."""
    keys = KeyFile(tmp_path / "keys.json")
    key = f"Bearer {keys.create('x', 'admin', rate_per_s=1e9)[0]}" if mode == "keys" else None
    access = Access(keys if key else None, allow_open=mode == "open", origins=["https://listed.example"])
    admitted = 0
    for origin, host, site in itertools.product(ORIGINS, LOCAL + NAMES, SITES):
        is_own = origin is None or origin in SAME.get(host, ()) or origin == "https://listed.example"
        may = is_own or (site == "same-origin" and origin != "null")
        may &= mode != "keyless" or host in LOCAL
        got = status(access, method, path, origin=origin, host=host, sec_fetch_site=site, authorization=key)
        assert (got == 200) is may, (origin, host, site)
        admitted += may
        if mode == "keys":
            assert status(access, method, path, origin=origin, host=host, sec_fetch_site=site) in (401, 403)
    assert 20 < admitted < 500


@pytest.mark.parametrize("path", ["/", "/page/app.js", "/docs", "/openapi.json", "/livez"])
def test_what_is_open_asks_for_no_origin_but_for_a_name_of_this_machine(path):
    access = Access()
    for method in ("GET", "HEAD"):
        assert status(access, method, path, origin="http://radio.example", host="127.0.0.1:8000") == 200
        assert status(access, method, path, origin="http://radio.example", host="radio.example") == 403
    assert status(access, "POST", path, origin="http://radio.example", host="127.0.0.1:8000") == 403


def test_x_forwarded_host_opens_nothing():
    headers = {"host": "127.0.0.1:8000", "origin": "https://evil.example", "x_forwarded_host": "evil.example"}
    assert status(Access(), "POST", "/v1/search", **headers) == 403
    assert status(Access(), "GET", "/v1/map", host="evil.example", x_forwarded_host="127.0.0.1:8000") == 403


def test_a_refusal_names_both_and_the_line_to_add():
    with pytest.raises(ApiError) as refused:
        Access().admit("POST", "/v1/search", Headers({"host": "127.0.0.1:8000", "origin": "http://nas:8080"}))
    for words in ("'http://nas:8080'", "'127.0.0.1:8000'", "proxy_set_header Host $http_host;", "serve.cors_origins"):
        assert words in refused.value.message
    with pytest.raises(ApiError) as refused:
        Access().admit("GET", "/", Headers({"host": "nas"}))
    for words in ("127.0.0.1 and localhost alone", "'nas'", "mulan keys create", "--open"):
        assert words in refused.value.message
    long = "https://" + "x" * 5_000
    with pytest.raises(ApiError) as refused:
        Access().admit("POST", "/v1/search", Headers({"host": "127.0.0.1", "origin": long}))
    assert len(refused.value.message) < 500 and "Host is '127.0.0.1'" in refused.value.message


@given(
    name=st.sampled_from(["radio.example", "127.0.0.1", "[::1]", "xn--mller-kva.example", "nas"]),
    port=st.none() | st.integers(1, 65535),
    scheme=st.sampled_from(["http", "https"]),
)
def test_a_page_is_of_the_host_that_a_browser_sends_for_it(name, port, scheme):
    """Browsers leave the scheme's own port out of both; proxies may write it out."""
    default = {"http": 80, "https": 443}[scheme]
    origin = f"{scheme}://{name}" + (f":{port}" if port not in (None, default) else "")
    sent = origin.partition("://")[2]
    assert is_same_site(origin, sent) and is_same_site(origin.upper(), sent)
    assert is_same_site(origin, f"{name}:{port or default}")
    assert not is_same_site(origin, f"{name}:{(port or default) % 65535 + 1}")
    assert not is_same_site(origin, f"x{name.strip('[]')}") and not is_same_site(sent, sent)
    if port not in (None, default):
        assert not is_same_site(origin, name), "a Host that lost its port"


@given(st.text(max_size=30))
def test_no_text_breaks_a_host(text):
    found = parse_host(text)
    assert found is None or (found.name and found.name == found.name.lower())
    is_same_site(text, text)


PREFIXES = st.from_regex(re.compile(r"(/[A-Za-z0-9_~-]{1,8}){1,4}"), fullmatch=True)
OWN = ["/", "/v1/search", "/v1/tracks/a//b/audio", "/page/app.js", "/docs", "/openapi.json", "/livez", "/metrics"]


@given(prefix=PREFIXES | st.sampled_from(["/v1", "/page", "/docs", "/v1/tracks"]), path=st.sampled_from(OWN))
def test_a_prefix_comes_off_once_whether_or_not_the_proxy_did_it(prefix, path):
    headers = [(b"x-forwarded-prefix", prefix.encode())]
    for seen in (path, prefix + path, prefix if path == "/" else path):
        scope = {"type": "http", "path": seen, "headers": headers}
        if seen == prefix and prefix in OWN:
            continue  # nobody can tell /docs under / from / under /docs; see the module
        found = without_prefix(scope)
        assert (found["path"], found["state"]["prefix"]) == (path, prefix)
        assert without_prefix(found)["path"] == path
    assert put_before(prefix, {"a": [{"audio_url": path}, {"audio_url": None}]}) == {
        "a": [{"audio_url": prefix + path}, {"audio_url": None}]
    }


@pytest.mark.parametrize(
    ("told", "prefix"),
    [
        (["/music"], "/music"),
        (["/music/"], "/music"),
        (["/"], ""),
        ([""], ""),
        (["/a, /b/"], "/a/b"),
        (["/a", "/b"], "/a/b"),
        *((["x" + text], None) for text in ("", "/music")),
        *(([text], None) for text in ("//evil.example", "/a//b", "https://evil.example", "/a/../b", "/./a", "/a\\b")),
        *(([text], None) for text in ('/a"><script>', "/a?b", "/a#b", "/a%2f", "/a b", "/a;b", "/é", "/" + "a" * 200)),
        (["/a", "//b"], None),
    ],
)
def test_a_prefix_is_a_plain_path(told, prefix):
    headers = Headers(raw=[(b"x-forwarded-prefix", text.encode()) for text in told])
    if prefix is None:
        with pytest.raises(ApiError, match="plain path such as /music"):
            announced_prefix(headers)
    else:
        assert announced_prefix(headers) == prefix


@pytest.mark.slow
def test_the_prefix_over_http(bare):
    """In audio_url and in the page's links; with a bad one nothing of it comes back."""
    search = {"url": "/v1/search", "json": {"text": "piano"}}
    told = {"X-Forwarded-Prefix": "/music"}
    for url in ("/v1/search", "/music/v1/search"):
        hits = bare.post(url, json=search["json"], headers=told).json()["hits"]
        assert {hit["audio_url"][:17] for hit in hits if hit["audio_url"]} == {"/music/v1/tracks/"}
    plain = bare.post(**search).json()
    assert {hit["audio_url"][:11] for hit in plain["hits"] if hit["audio_url"]} == {"/v1/tracks/"}
    points = [bare.get("/v1/map", headers=headers).json()["points"] for headers in (told, {})]
    assert [next(p["audio_url"] for p in drawn if p["audio_url"])[:7] for drawn in points] == ["/music/", "/v1/tra"]
    for page in ("/", "/docs"):
        assert not re.findall(r'(?:src|href)="/', bare.get(page).text)
        for seen in {page, f"/music{page}", "/music" if page == "/" else page}:
            links = re.findall(r'(?:src|href)="(/[^"]*)"', bare.get(seen, headers=told).text)
            assert len(links) >= 3 and all(link.startswith("/music/") for link in links)
    servers = [bare.get("/openapi.json", headers=headers).json()["servers"][0]["url"] for headers in (told, {})]
    assert servers == ["/music", "."]
    bad = {"X-Forwarded-Prefix": "//evil.example"}
    for answer in (bare.get("/", headers=bad), bare.post(**search, headers=bad), bare.get("/livez", headers=bad)):
        check_error(answer, 400, "bad_request", "plain path")
        assert "evil" not in answer.text


@pytest.mark.slow
def test_over_http_the_page_behind_a_bare_proxy_searches(bare, service):
    """What a browser on this machine sends through a proxy that gives requests another Host."""
    page = {"Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "same-origin"}
    assert len(ids(bare.post("/v1/search", json={"text": "a"}, headers=page).json())) == 10
    page["Sec-Fetch-Site"] = "same-site"
    check_error(bare.post("/v1/search", json={"text": "a"}, headers=page), 403, "forbidden", r"Origin is 'http.*8080'")
    page |= {"Sec-Fetch-Site": "same-origin", "Host": "evil.example"}
    check_error(bare.post("/v1/search", json={"text": "a"}, headers=page), 403, "forbidden", "localhost alone")
    with run_bare(create_api(service, replace(SERVE, cors_origins=("https://radio.example",)))) as url:
        site = {"Origin": "https://radio.example", "Sec-Fetch-Site": "cross-site"}
        assert httpx.post(f"{url}/v1/search", json={"text": "a"}, headers=site).status_code == 200


ASKED = [
    ("POST", "content-type, idempotency-key"),
    ("DELETE", "authorization"),
    ("GET", "x-request-id"),
    ("HEAD", None),
]
ASKED += [("PUT", None), ("PATCH", None), ("POST", "x-own"), ("QUERY", None)]


@pytest.mark.slow
def test_a_browser_is_offered_beforehand_what_then_works(service):
    """What an answer to OPTIONS allows is done by the request that follows; what it refuses is told."""
    listed = "https://radio.example"
    with (
        run_bare(create_api(service, replace(SERVE, cors_origins=(listed,)))) as url,
        httpx.Client(base_url=url) as client,
    ):
        for origin, (method, headers) in itertools.product([listed, "https://evil.example", "null"], ASKED):
            asks = {"Origin": origin, "Access-Control-Request-Method": method}
            asks |= {"Access-Control-Request-Headers": headers} if headers else {}
            path = "/v1/search" if method == "POST" else "/v1/tracks/nobody"
            offered = client.options(path, headers=asks)
            sent = {"Origin": origin} | dict.fromkeys((headers or "").split(", "), "application/json")
            sent.pop("", None)
            if offered.status_code == 200:
                assert offered.headers["access-control-allow-origin"] == origin == listed
                then = client.request(method, path, headers=sent, content=b"{}" if method == "POST" else None)
                assert then.status_code in (404, 422) and then.headers["access-control-allow-origin"] == origin
            else:
                check_error(offered, 403, "forbidden", "serve.cors_origins" if origin != listed else "may ask with GET")
                assert not [name for name in offered.headers if name.startswith("access-control-allow-")]
