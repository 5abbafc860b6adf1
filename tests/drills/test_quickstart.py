"""docs/quickstart.md from its second section on, command by command, as it stands there.

Two things differ: the table is one of tones, and each command is given numbers that train for seconds.
"""

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1] / "flows"))

from flow_fixtures import MULAN, PARAMS, PITCHES, ROOT, SHAPES, environment, left_of, tone

from serving.ports import free_port

pytestmark = pytest.mark.timeout(900)
TEXT = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
COMMANDS = [
    line.strip() for line in TEXT[TEXT.index("## 2.") :].splitlines() if re.match(r" {4}(mulan|curl) ", line)
] + re.findall(r"`(mulan (?:prepare|index) [^`]+)`", TEXT[TEXT.index("## Next") :])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart")
    (folder / "music").mkdir()
    lines = ["uri,text"]
    for i in range(90):
        pitch, shape = list(PITCHES)[i % 3], list(SHAPES)[(i // 3) % 2]
        soundfile.write(folder / "music" / f"{i:04}.flac", np.tile(tone(pitch, shape, seed=i), 2), 16_000)
        lines.append(f'music/{i:04}.flac,"a {shape} synth, {pitch}"')
    (folder / "tracks.csv").write_text("\n".join(lines))
    numbers = PARAMS.replace("PORT", str(free_port())).replace("tagging/pitch/roc_auc: 0.6, ", "")
    (folder / "numbers.yaml").write_text(
        numbers.replace("compare: [tagging/pitch/roc_auc]", "compare: [retrieval/text/auc]")
    )
    return folder


@pytest.fixture(scope="module")
def started():
    """Commands of the page that go on until they are stopped."""
    processes = []
    yield processes
    for process in processes:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)


def words_of(command, folder):
    words = shlex.split(command)
    words = [str(MULAN) if word == "mulan" else word for word in words]
    if "--manifest" in words and "lineage" not in words:
        words += ["--params", "numbers.yaml"]
    port = re.search(r"serve: \{port: (\d+)", (folder / "numbers.yaml").read_text()).group(1)
    return [word.replace("localhost:8000", f"127.0.0.1:{port}") for word in words], f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("command", COMMANDS)
def test_it_does_what_the_page_says(command, folder, started):
    words, url = words_of(command, folder)
    env = environment(folder / ".mulan") | {"MULAN_URL": url}
    if words[1:2] in (["serve"], ["ui"]):
        process = subprocess.Popen(
            words, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        for line in process.stdout:
            if found := re.search(r"http://[\w.]+:\d+", line):
                assert httpx.get(found.group(), timeout=60).status_code == 200
                return
        pytest.fail(f"{command} ended")
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr, (done.stdout + done.stderr)[-3000:]
    if ("search" in command and "--json" in command) or command.startswith("curl"):
        assert json.loads(done.stdout)["hits"]


def test_every_kind_of_command_was_among_them_and_nothing_is_left(folder, started):
    kinds = {command.split()[1] for command in COMMANDS if command.startswith("mulan")}
    assert kinds >= {"data", "run", "serve", "search", "tag", "ui", "status", "release", "lineage", "prepare", "index"}
    while started:
        process = started.pop()
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    assert left_of(folder, within_s=15) == []
