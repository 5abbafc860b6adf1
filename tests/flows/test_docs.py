"""The pages: every command in them is one that exists, with options that it takes; and the site builds.

``tests/drills/test_quickstart.py`` runs them.
"""

import re
import shlex
import subprocess
import sys

import pytest
import typer
from flow_fixtures import ROOT

from flows.cli.app import app

PAGES = [
    "README.md",
    "infra/README.md",
    "CONTRIBUTING.md",
    *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
]
MULAN = typer.main.get_command(app)
BLOCK = re.compile(r"^(?: {4}|\$ )(?:\.venv/bin/)?(mulan .+)$", re.MULTILINE)
INLINE = re.compile(r"`(mulan [^`]+)`")


def commands(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for line in BLOCK.findall(text) + [" ".join(words.split()) for words in INLINE.findall(text)]:
        for part in re.split(r" && | \| ", line.split(" #")[0]):
            if part.startswith("mulan "):
                yield part.strip()


def check(line):
    """Let the command's own parser read the line; a placeholder in capitals stands for a value."""
    command, words = MULAN, shlex.split(line)[1:]
    while words and hasattr(command, "commands"):
        if words[0].startswith("-"):
            break
        assert words[0] in command.commands, f"there is no `mulan {words[0]}`: {line}"
        command = command.commands[words.pop(0)]
    options = {name: one for one in command.params for name in (*one.opts, *one.secondary_opts) if name.startswith("-")}
    arguments = [one for one in command.params if not one.opts[0].startswith("-")]
    given = 0
    while words:
        word, _, value = words.pop(0).partition("=")
        if not word.startswith("--") or word == "--help":
            given += 1
            continue
        assert word in options, f"{command.name} has no {word}: {line}"
        if not options[word].is_flag and not value and words:  # named alone in prose, it has no value
            words.pop(0)
    assert given <= len(arguments) or any(one.nargs == -1 for one in arguments), f"{command.name} takes less: {line}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page):
    for line in commands(page):
        check(line)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("mulan sarch x", "there is no"),
        ("mulan search x --kk 3", "has no --kk"),
        ("mulan ui 1 2", "takes less"),
        ("mulan release shw", "there is no"),
    ],
)
def test_a_wrong_command_would_be_found(line, why):
    with pytest.raises(AssertionError, match=why):
        check(line)


def test_the_site_builds(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=.https?://", page), (
        "nothing is fetched from elsewhere"
    )
