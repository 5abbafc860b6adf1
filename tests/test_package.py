"""What is published: a wheel that works outside the checkout, and a source archive that builds the same wheel."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command, cwd, **env):
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, env=env or None)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Both archives, built by the standard front end without a network, as `python -m build` would with one."""
    folder = tmp_path_factory.mktemp("dist")
    source = folder / "source"
    run("git", "clone", "-q", ROOT, source, cwd=folder)  # no ignored file may slip in
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder]
    run(*build, "--sdist", source, cwd=folder)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    run(*build, "--wheel", folder / archive.name.removesuffix(".tar.gz"), cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return archive, wheel


def test_the_wheel_holds_every_file_of_the_packages(built):
    tracked = run("git", "ls-files", "mulan_core", "serving", "flows", cwd=ROOT).splitlines()
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
    carried = {name for name in names if name.startswith("flows/project_files/")}
    assert set(tracked) <= names
    assert {name.split("/")[0] for name in names} == {"mulan_core", "serving", "flows", "mulan-0.1.0.dist-info"}
    assert {f"flows/project_files/{name}" for name in ("dvc.yaml", "params.yaml", "configs/own.yaml")} <= carried


def test_the_wheel_works_outside_the_checkout(built, tmp_path):
    """Its files alone, on the installed dependencies: the demo's workspace, and the numbers for an own catalogue."""
    site, away = tmp_path / "site", tmp_path / "away"
    away.mkdir()
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, built[1], cwd=tmp_path)
    env = {"PYTHONPATH": str(site), "MULAN_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"}
    (away / "tracks.csv").write_text("uri,text\ngone.wav,calm piano\n")
    assert run(site / "bin" / "mulan", "--version", cwd=away, **env).strip() == "0.1.0"
    program = """
import sys
from pathlib import Path
import flows
from flows.runtime.workspace import open_workspace
from serving.app import PAGE
assert Path(flows.__file__).is_relative_to(sys.argv[1]), flows.__file__
home = Path(sys.argv[2])
demo, own = open_workspace(home, demo=True), open_workspace(home, manifest="tracks.csv")
print(demo.is_demo, own.is_demo, own.config.catalogue, (PAGE / "index.html").is_file())
"""
    said = run(sys.executable, "-c", program, site, tmp_path / "home", cwd=away, **env)
    assert said.split() == ["True", "False", ".mulan/data/catalogue", "True"]
