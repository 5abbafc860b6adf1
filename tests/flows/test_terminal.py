"""What people read on the terminal: data as it is, whole at any width, and nothing that steers the terminal."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys

import pytest
from flow_fixtures import MULAN, ROOT, environment
from rich.cells import cell_len

from flows.cli import app as cli
from flows.cli import reporting
from flows.cli import status as cli_status
from flows.cli import versions as cli_versions
from flows.runtime import terminal
from flows.runtime.terminal import Table, Terminal, visible, words
from mulan_core.counts import counted

HOSTILE = [
    *("song [live at wembley] [remix]", "[/b]", "[red]x[/red]", "[link=http://x.example]y[/link]", "\\[x]", ":smile:"),
    *(
        "\x1b]0;owned\x07",
        "\x1b[31mred",
        "\x9b31m",
        "a\rb",
        "a\x08b",
        "\u202egnp.exe",
        "\u2066x",
        "夜に駆ける",
        "e\u0301te\u0301",
    ),
    *("\N{GRINNING FACE}", "http://127.0.0.1:8000/" + "a" * 90, "[bold", "]", "{x}", "%s", "*a* _b_ `c`", "\ud800"),
]


def printed(*objects, width=None, monkeypatch=None, encoding="utf-8"):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace")
    console = Terminal(file=file) if width is None else Terminal(file=file, width=width)
    for one in objects:
        console.print(one)
    file.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("text", HOSTILE)
def test_data_is_printed_as_it_is_wherever_it_stands(text):
    shown = visible(text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    table = Table("", text, title=text, caption=text)
    table.add_row(text, words((text, "red")))
    out = printed(text, table, words(text))
    assert out.count(shown) == 7
    assert "\x1b" not in out


@pytest.mark.parametrize("width", [20, 40, 60, 79, 100])
@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_is_cut_at_any_width(text, width):
    table = Table("place", "track", "title", "labels", "score")
    table.add_row("1", "id-" + "x" * 50, text, "jazz, piano", "0.123")
    out = printed(table, width=width)
    assert "\N{HORIZONTAL ELLIPSIS}" not in out
    letters = re.sub(r"[\s│┃┏┓┡┩└┘━─┳┴╇]", "", out)
    folded = re.sub(r"\s", "", visible(text))
    for char in set(folded):
        assert letters.count(char) >= folded.count(char)
    if width < 79:
        assert folded in letters.replace("track:", "").replace("title:", "")
    assert all(cell_len(line) <= width for line in out.splitlines())


def test_columns_stand_below_each_other_with_wide_letters():
    table = Table("title", "score")
    for title in ("夜に駆ける", "e\u0301te\u0301", "plain", "\N{GRINNING FACE}", "[b]"):
        table.add_row(title, "0.5")
    rows = [line for line in printed(table, width=60).splitlines() if "0.5" in line]
    assert len({cell_len(row.partition("0.5")[0]) for row in rows}) == 1


def test_a_pipe_gets_whole_lines(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    address = "http://127.0.0.1:8000/" + "a" * 300
    table = Table("what", "where", "more")
    table.add_row("page", address, "x" * 200)
    out = printed(address, table)
    assert sum(address in line for line in out.splitlines()) == 2


def test_an_ascii_terminal_spells_out_what_it_has_no_letter_for():
    table = Table("title")
    table.add_row("夜 é")
    out = printed(table, encoding="ascii")
    assert r"\u591c \xe9" in out


class Screen:
    """A console in the place of the commands' own."""

    def __init__(self, monkeypatch, width=None):
        self.raw = io.StringIO()
        console = Terminal(file=self.raw, **({"width": width} if width else {}))
        for module in (reporting, cli_status, cli_versions, terminal):
            for name in ("console", "errors"):
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, console)

    def text(self):
        return self.raw.getvalue()


HIT = {"score": 0.5, "match": None, "start_s": None, "end_s": None}
RELEASE = {"model_version": "7", "collection": "tracks_7_d"}
TIMES = {"total": 20.0, "encode": 10.0, "search": 5.0}


@pytest.mark.parametrize("text", HOSTILE)
def test_every_report_prints_hostile_data(text, monkeypatch):
    screen, shown = Screen(monkeypatch), visible(text)
    hit = HIT | {"track_id": text, "title": text, "labels": [text.replace(":", "")]}
    release = RELEASE | {"collection": text}
    reporting.show_hits(text, {"hits": [hit], "no_good_match": True, "timing_ms": TIMES, "release": release})
    counts = {
        "tracks": 1,
        "usable": 1,
        "hours": 1.0,
        "changes": {text: 1},
        "splits": {text: 1},
        "quarantined": {text: 1},
        "prepared": text,
    }
    texts = {text: {"before": 1, "after": 1}}
    reporting.show_prepared(counts | {"texts": texts})
    check = {
        "manifest": text,
        "rows": 1,
        "duplicate_ids": 0,
        "reasons": {text: 1},
        "remote": 0,
        "usable": 1,
        "hours": 1.0,
        "left_out": {"endings": {}, "archives": [text], "links": 0, "system": 0, "closed": [text]},
    }
    check |= {"splits": {text: 1}, "texts": texts, "warnings": [text], "bad_rows": [{"row": 1, "problems": [text]}]}
    check |= {"notes": [text], "needs": text, "refusals": [text], "few": 1, "proposal": text, "advice": text}
    reporting.show_check(check | {"bad_files": [{"uri": text, "reason": text, "detail": text}]})
    report = {
        "set": {"title": text, "counts": {}},
        "metrics": {text: 0.5},
        "intervals": {},
        "chance": {},
        "notes": [text],
    }
    reporting.show_evaluation(report)
    model = {"name": text, "kind": text, "embedding_dim": 8, "run_id": text}
    reporting.show_evaluations({"model": model, "sets": {}, "notes": [text], "out": text, "logged": [text]})
    reporting.show_stages({text: 1.0}, 2.0)
    edits = {"added": 1, "deleted": 1, "superseded": [text], "left": [text]}
    reporting.show_edits(edits)
    built = {"version": text, "collection": text, "built": False, "promoted": True, "changes": {text: 1}, "count": 1}
    reporting.show_index(
        built
        | {"judged_on": text, "edits": None, "mended": 2, "mended_for": {"gone": 2}, "url": None, "not_served": text}
    )
    trial = {"name": text, "score": 0.5, "interval": None, "steps": 1}
    found = {"metric": text, "trials": [trial], "verdict": text, "params": text, "run_id": text}
    reporting.show_search(found)
    cli_versions._show({text: [text, text]})
    assert screen.text().count(shown) >= 35
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", screen.text())


@pytest.mark.parametrize("text", HOSTILE)
def test_an_error_prints_hostile_data_on_one_line(text, monkeypatch, tmp_path):
    monkeypatch.setenv("MULAN_HOME", str(tmp_path))
    raw = io.StringIO()
    monkeypatch.setattr(cli, "errors", Terminal(file=raw))
    with pytest.raises(SystemExit):
        cli._fail(f"there is no {text}\nat all")
    assert raw.getvalue() == f"mulan: there is no {visible(text)} at all\n"


def test_nothing_of_ours_prints_with_markup():
    """Rich's console, tables and markup are named in one file, terminal.py; a style goes through ``words``."""
    for path in sorted(p for package in ("flows", "serving", "mulan_core") for p in (ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if path.name in ("terminal.py", "progress.py"):
                continue
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rich":
                allowed = {"Column"}
                assert {alias.name for alias in node.names} <= allowed, f"{path} prints past flows/runtime/terminal.py"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called = ast.unparse(node.func)
                assert called not in ("typer.echo", "typer.secho", "click.echo", "rich.print"), f"{path}: {called}"
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and path.is_relative_to(ROOT / "flows"):
                assert not re.search(r"\[/?(b|bold|dim|red|green|yellow)\]", node.value), f"{path}: {node.value!r}"


def run(*command, home, **env):
    environ = environment(home) | {"PYTHONPATH": str(ROOT)} | env
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, cwd=home)


def test_a_closed_pipe_ends_quietly(tmp_path):
    for arguments in ("data list", "data list --json"):
        done = run("bash", "-c", f"{MULAN} {arguments} | head -c 1; echo ${{PIPESTATUS[0]}}", home=tmp_path)
        assert done.stderr == ""
        assert done.stdout.splitlines()[-1][-3:].lstrip("[ ┏") in ("0", "141")


def test_ascii_output_takes_any_name(tmp_path):
    (tmp_path / "m.csv").write_text("uri,text\nnö.wav,a\n", encoding="utf-8")
    env = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    done = run(str(MULAN), "data", "check", str(tmp_path / "m.csv"), home=tmp_path, **env)
    assert done.returncode == 1, done.stderr
    assert "UnicodeEncodeError" not in done.stderr
    assert r"n\xf6.wav: missing" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("serve --port 99999", "--port is 99999; it must be a whole number from 1 to 65535"),
        ("demo --port 0", "--port is 0"),
        ("estimate --tracks -1", "--tracks is -1; it must be a number from 1"),
        ("demo --size -3", "--size is -3; it must be a whole number from 1"),
        ("ui --port -1", "--port is -1"),
        ("search x --k 0", "--k is 0; it must be a whole number from 1 to 100"),
        ("search x --k many", "'--k': it must be a whole number"),
        ("search x --offset 1000", "--offset is 1000"),
        ("keys create a --rate nan", "--rate is .nan; it must be a number above 0"),
        ("estimate --tracks inf", "--tracks is .inf"),
        ("estimate --tracks 1e6 --gpus 0", "--gpus is 0"),
        ("estimate --tracks 1e6 --utilisation nan", "--utilisation is .nan"),
        ("release shadow 4 --share nan", "--share is .nan; it must be a number from 0 to 1"),
        ("release prune --keep -1", "--keep is -1"),
        ("run --min-new -1", "--min-new is -1"),
        ("ablate --seeds 0", "--seeds is 0"),
        ("text label a --out b --limit 0", "--limit is 0"),
        ("feedback export a.jsonl --least 0", "--least is 0"),
        ("search x --[red]", "No such option: --[red]; see mulan search --help"),
    ],
)
def test_a_number_out_of_its_range_is_told_before_anything_starts(arguments, sentence, monkeypatch, tmp_path):
    monkeypatch.setenv("MULAN_HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["mulan", *arguments.split()])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    raw = io.StringIO()
    monkeypatch.setattr(cli, "errors", Terminal(file=raw))
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert raw.getvalue().startswith("mulan: ") and raw.getvalue().count("\n") == 1
    assert sentence in raw.getvalue()


def test_every_number_of_the_commands_has_a_range():
    """An int or float among a command's options goes through ``flows.runtime.numbers.number``."""
    found = 0
    for path in (ROOT / "flows" / "cli").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.arg) and node.annotation is not None and path.name != "dvc_stage.py":
                annotation = ast.unparse(node.annotation)
                if re.match(r"Annotated\[(int|float)\b", annotation):
                    assert re.match(r"Annotated\[(int|float)( \| None)?, number\(", annotation), (
                        f"{path.name}: {annotation}"
                    )
                    found += 1
    assert found >= 14


NOISY = """
import logging, os, sys, warnings
from flows.runtime.library_log import into_log, log_warnings
log_warnings()
log_warnings()
warnings.warn("a warning of Python's")
logging.getLogger("some.library").warning("a warning of a library")
with into_log():
    os.write(2, b"a line of C++\\n")
    print("a line of Python", file=sys.stderr)
print("ours", file=sys.stderr)
"""


def test_what_libraries_say_is_in_the_homes_log(tmp_path):
    done = run(sys.executable, "-c", NOISY, home=tmp_path)
    assert (done.stdout, done.stderr) == ("", "ours\n")
    log = (tmp_path / "mulan.log").read_text()
    assert "a warning of Python's" in log
    for said in ("a warning of a library", "a line of C++", "a line of Python"):
        assert log.count(f"{said}\n") == 1


def test_a_time_is_shown_in_one_way_with_its_zone():
    assert terminal.moment("2026-03-01T10:30:00.123456+01:00") == "2026-03-01 09:30:00 UTC"
    assert terminal.moment("2026-03-01T09:30:00Z") == "2026-03-01 09:30:00 UTC"
    for other in ("", "now", "2026-03-01 09:30:00", terminal.now()):
        assert terminal.moment(other) == other


def test_one_of_a_thing_is_told_in_the_singular(monkeypatch):
    raw = io.StringIO()
    monkeypatch.setattr(reporting, "console", Terminal(file=raw, width=400))
    built = {"version": "1", "collection": "c", "promoted": True, "changes": {"new": 1}, "count": 1, "windows": 1}
    built |= {"built": False, "judged_on": None, "mended": 1, "mended_for": {"title": 1}, "url": "u"}
    reporting.show_index(built | {"edits": {"added": 1, "deleted": 1, "superseded": ["a"], "left": ["b"]}})
    report = {"set": {"title": "s", "counts": {"test_tracks": 1}}, "metrics": {}, "intervals": {}, "chance": {}}
    reporting.show_evaluation(report | {"notes": []})
    assert cli_status._served({"model_version": "1", "num_tracks": 1, "url": "u"}) == "version 1, 1 track, at u"
    assert not re.search(r"\b1 \w*(s|ies) |\b1 \w+ (are|have|were)\b", raw.getvalue()), raw.getvalue()
    assert [counted(number, "query", "queries") for number in (0, 1, 2_000)] == [
        "0 queries",
        "1 query",
        "2,000 queries",
    ]
