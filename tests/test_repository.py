"""The house: what the files promise about themselves, and what may be imported where."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(p for package in ("mulan_core", "serving", "flows") for p in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_file_opens_by_saying_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no opening docstring"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_read_at_one_go(path):
    """A function is a page at most, a file six; the configuration alone is one long list."""
    text = path.read_text()
    assert len(text.splitlines()) <= 350 or path.name == "config.py", "split it by what it does"
    functions = [
        node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    assert not [node.name for node in functions if node.end_lineno - node.lineno >= 60]


def test_no_two_test_files_share_a_name():
    """pytest imports them by name alone, and refuses the second."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)


def test_every_number_is_explained():
    """A field of a config dataclass is followed by its text."""
    for node in ast.walk(ast.parse((ROOT / "mulan_core" / "config.py").read_text())):
        if isinstance(node, ast.ClassDef):
            for field, text in zip(node.body, node.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign):
                    said = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
                    assert said, f"{node.name}.{field.target.id} has no text"


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
)
def test_pages_link_to_files_that_exist(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page} links to {target}"


def test_every_decision_is_in_the_list():
    listed = re.findall(r"\]\((\d\S+)\)", (ROOT / "docs/decisions/index.md").read_text())
    assert listed == sorted(p.name for p in (ROOT / "docs/decisions").glob("[0-9]*.md"))


@pytest.mark.parametrize("script", sorted((ROOT / "findings").glob("*.sh")), ids=lambda p: p.name)
def test_a_finding_says_what_was_guessed_what_was_seen_and_with_what(script):
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n# "), "it opens by the finding in one sentence"
    for word in ("# Guess:", "# Seen:", "# With:", "set -euo pipefail", "mktemp -d"):
        assert word in text, f"{script.name} has no {word}"
    assert re.search(r"pip install [^\n]*==|npm install [^\n]*@\d", text), f"{script.name} pins no package"
    assert not re.search(r"(?<![\w/.])(import|from) (mulan_core|serving|flows)\b", text), "it does without this project"
    subprocess.run(["bash", "-n", script], check=True)


def test_the_papers_map_names_files_and_tests_that_exist():
    for row in (ROOT / "docs" / "paper.md").read_text().splitlines():
        file = None
        for name in re.findall(r"`(\w+/[\w./]*(?:::\w+)?|::\w+)`", row) if row.startswith("|") else ():
            place, _, test = name.partition("::")
            file = ROOT / place if place else file
            assert file and file.exists(), f"docs/paper.md names {name}"
            assert not test or f"def {test}(" in file.read_text(), f"docs/paper.md names {name}"


def test_the_file_map_names_what_is_there():
    table = (ROOT / "README.md").read_text().split("## Where things are")[1].split("\n## ")[0]
    core = ROOT / "mulan_core"
    for row in table.splitlines():
        for name in re.findall(r"`([\w./]+)`", row.partition("|")[2].partition("|")[0]):
            assert (ROOT / name).exists() or (core / name).exists(), f"README's map names {name}"


def test_flows_that_are_named_by_text_are_there():
    """The command line imports a flow by name, once its stack opens; Prefect's deployments name files."""
    from flows.cli.stages import MODULES

    commands = "".join(path.read_text() for path in (ROOT / "flows" / "cli").glob("*.py"))
    run = re.findall(r'run_flow\(\s*"(\w+)"', commands)
    named = {(f"flows/pipeline/{MODULES.get(name, name)}.py", name) for name in run}
    named |= {("flows/pipeline/release.py", name) for name in re.findall(r'_run\("(\w+)"', commands)}
    named |= set(re.findall(r"entrypoint: (\S+):(\w+)", (ROOT / "prefect.yaml").read_text()))
    assert len(named) > 12
    for file, name in named:
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.M), f"there is no flow {name} in {file}"
    for module in re.findall(r'ahead="([\w.]+)"', commands):
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), f"there is no {module}"


def test_the_model_registry_is_asked_in_one_file():
    """Each catalogue is to have a registered model of its own, so who looks up a version says whose."""
    asks = re.compile(
        r"\b(get_model_version|get_registered_model|search_model_versions|registered_model_alias)|models:/"
    )
    assert [str(path.relative_to(ROOT)) for path in MODULES if asks.search(path.read_text())] == ["flows/registry.py"]


def test_the_model_needs_torch_transformers_and_numpy_alone():
    """On a bare GPU box the model, the loss and the loop must import and run."""
    program = """
import sys
ALLOWED = {"mulan_core", "torch", "transformers", "numpy", "yaml", *sys.stdlib_module_names}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        frame = sys._getframe(1)
        while "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        # transformers takes what it finds; what matters is what our own files ask for
        if "mulan_core" in frame.f_code.co_filename and name.split(".")[0] not in ALLOWED:
            raise ImportError(f"{frame.f_code.co_filename} imports {name}")
sys.meta_path.insert(0, Refuse())
import torch
from transformers import BertConfig
from mulan_core import MuLanModel, MuLanProcessor
from mulan_core.config import AudioTowerConfig, FrontendConfig, ModelConfig
import mulan_core.training
from mulan_core.losses import contrastive_loss
config = ModelConfig(frontend=FrontendConfig(window_s=1.0),
    audio=AudioTowerConfig(layer_type="basic", embedding_size=8, hidden_sizes=(8, 16), depths=(1, 1)))
text = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16)
model = MuLanModel.from_config(config, text_config=text)
audio, words = model(torch.randn(3, 16000), torch.randint(0, 99, (3, 5)), torch.ones(3, 5, dtype=torch.long))
contrastive_loss(audio, words, model.tau).backward()
print("ran")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "ran", done.stderr[-2000:]


# gcsfs wants the fsspec of its own version and has none for the locked one; s3fs and dvc need that one.
UNLOCKED = {"gcsfs"}


def test_the_lock_names_every_direct_dependency():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [d for extra in project["optional-dependencies"].values() for d in extra]
    lock = (ROOT / "constraints.txt").read_text().lower().replace("_", "-")
    for requirement in wanted:
        name = re.match(r"[\w.-]+", requirement).group().lower().replace("_", "-")
        is_locked = re.search(rf"^{re.escape(name)}==", lock, re.M) is not None
        assert is_locked != (name in UNLOCKED), f"constraints.txt and UNLOCKED disagree on {name}"


RETIRED = {
    "canary|canaries": "shadow release",
    "probe_l2": "probe_c",
    "[Ss]tretch(es)?": "window, or segment of a file",
    "BestStretches|best_stretches": "BestWindows",
    "WIDTHS": "EF_CANDIDATES",
    "learn_norms": "learn_query_statistics",
    "TextProgram": "OnnxTextEncoder",
    "marks_of": "fingerprints",
    "_?(MOST|LEAST|LONGEST)_[A-Z_]+": "MAX_ or MIN_",
    "TOLD": "FAILURE_HOOKS",
    "conduct|conducted": "behaviour",
    "mulan plan": "mulan estimate",
}
"""Words that were given up, as patterns of whole words, and what is said instead."""
SAYS_OLD_WORDS = ("CHANGELOG.md", "tests/test_repository.py", "tests/core/test_config.py", "mulan_core/config.py")


def test_words_that_were_given_up_do_not_come_back():
    """Decisions and findings are dated, and keep theirs; CSS and SVG have a "stretch" of their own."""
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    retired = {re.compile(rf"(?<!\w)(?:{word})(?!\w)"): instead for word, instead in RETIRED.items()}
    for name in files:
        path = ROOT / name
        if path.suffix not in (".py", ".md", ".yaml", ".js") or name in SAYS_OLD_WORDS or not path.is_file():
            continue
        if name.startswith(("docs/decisions/", "findings/")) or name == "mulan_core/evaluation/page/charts.py":
            continue
        text = path.read_text(encoding="utf-8")
        for word, instead in retired.items():
            assert not (seen := word.search(text)), f"{name} says {seen[0]!r}; the word is {instead}"


def test_the_glossary_is_short():
    glossary = (ROOT / "CONTRIBUTING.md").read_text().split("## Glossary")[1].split("\n## ")[0]
    words = re.findall(r"^\| ([\w ]+) \|", glossary, re.MULTILINE)[1:]
    assert words == list(dict.fromkeys(words)) and len(words) <= 30
