"""The architecture: who imports whom, how long functions are, what the README documents."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import app
import model
from app.settings import Settings
from model import WEIGHTS, load_artifact
from model.artifact import save_artifact
from scripts import write_docs
from tests.servers import ROOT

NEEDS_TORCH = {"model/efficientnet.py", "model/engines.py", "model/layers.py", "model/network.py"}
SOURCES = sorted(path for package in ("app", "model", "scripts") for path in (ROOT / package).rglob("*.py"))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_model_imports_nothing_of_app_and_app_only_what_packages_offer(path):
    modules = list(imports(path))
    package = name(path).split("/")[0]
    if package == "app" and "commands" not in path.parts:
        deep = [module for module in modules if module.startswith("model.") and module.count(".") > 1]
        assert not deep, "app imports modules of model and what its packages offer, nothing behind them"
    if package == "model":
        assert not [module for module in modules if module.split(".")[0] in ("app", "scripts", "fastapi", "asyncio")]


LEVELS = [
    {"app.validation"},
    {"app.connections", "app.hangup", "app.instance", "app.logs", "app.metrics", "app.settings"},
    {"app.inference"},
    {"app.problems"},
    {"app.keys", "app.lifecycle", "app.middleware", "app.reload", "app.schemas", "app.uploads"},
    {"app.dependencies", "app.fast_path"},
    {"app.routes"},
    {"app.grpc"},
    {"app.main", "app.command_line", "app.openapi"},
    {"app.commands"},
    {"app.server"},
    {"app.__main__"},
]
"""The modules and packages of app; each imports only what stands above it, or beside it in its own level."""


def level(module: str) -> int | None:
    return next((i for i, names in enumerate(LEVELS) if any(f"{module}.".startswith(f"{n}.") for n in names)), None)


@pytest.mark.parametrize("path", [path for path in SOURCES if name(path).startswith("app/")], ids=name)
def test_no_import_points_upwards(path):
    own = level(name(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__"))
    if own is not None:
        found = [module for module in imports(path) if (level(module) or 0) > own]
        assert not found


@pytest.mark.parametrize("path", [path for path in SOURCES if name(path).startswith("app/inference/")], ids=name)
def test_inference_knows_no_web_framework(path):
    frameworks = {"fastapi", "starlette", "uvicorn", "gunicorn"}
    assert not frameworks & {module.split(".")[0] for module in imports(path)}
    assert "app.problems" not in imports(path)


def test_inference_runs_without_a_web_framework():
    code = "import sys; import app.inference.predictor, app.inference.evaluator; "
    code += "print({name.split('.')[0] for name in sys.modules} & {'fastapi', 'starlette', 'uvicorn'})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("path", [path for path in SOURCES if name(path).startswith("model/")], ids=name)
def test_only_training_export_and_the_score_import_torch(path):
    if not (name(path) in NEEDS_TORCH or name(path).startswith(("model/training/", "model/export/", "model/ood/"))):
        assert not [module for module in imports(path) if module.split(".")[0] in ("torch", "torchvision")]


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_one_reader_of_the_environment(path):
    text = path.read_text()
    assert name(path) == "app/settings.py" or not re.search(r"os\.environ|getenv", text)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_no_function_is_longer_than_a_screen(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name


def test_the_public_surface_is_what_it_says():
    public = {key for key, value in vars(model).items() if not key.startswith("_") and not _is_module(value)}
    assert public - {"Path"} == set(model.__all__)
    assert len(model.__all__) <= 20


def _is_module(value: object) -> bool:
    return type(value).__name__ == "module"


def test_the_imported_packages_are_those_of_this_repository():
    assert Path(app.__file__).is_relative_to(ROOT)
    assert Path(model.__file__).is_relative_to(ROOT)


DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "deploy/README.md",
]


def test_the_generated_documentation_is_up_to_date(capsys):
    assert write_docs.main(["--check"]) == 0, capsys.readouterr().err


def test_the_documents_leave_out_a_model_of_your_own(tmp_path, monkeypatch, capsys):
    shutil.copytree(WEIGHTS, tmp_path, dirs_exist_ok=True)
    own = load_artifact(WEIGHTS, "fashionnet")
    save_artifact(tmp_path, own.card.model_copy(update={"name": "mine", "int8_metrics": {}}), own.content)
    monkeypatch.setattr(write_docs, "WEIGHTS", tmp_path)
    assert write_docs.main(["--check"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_documents_name_only_settings_that_there_are(path):
    named = set(re.findall(r"`FASHIONNET_(\w+)", path.read_text()))
    assert named <= {field.upper() for field in Settings.model_fields}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "CHANGELOG.md"], ids=name)
def test_prose_lines_have_at_most_120_characters(path):
    assert not [line for line in path.read_text().splitlines() if len(line) > 120 and not line.startswith("|")]


@pytest.mark.parametrize("path", [*SOURCES, *sorted((ROOT / "benchmarks").glob("*.py"))], ids=name)
def test_the_decisions_that_code_names_exist(path):
    for record in re.findall(r"docs/decisions/([\w-]+\.md)", path.read_text()):
        assert (ROOT / "docs/decisions" / record).is_file(), record


def test_the_requirements_name_no_index():
    for path in (ROOT / "requirements").glob("*.txt"):
        assert "://" not in path.read_text()
        assert "--index" not in path.read_text()


def test_every_imported_package_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    own = {"app", "model", "scripts", "tests", "benchmarks", "deploy"} | sys.stdlib_module_names
    distributions = packages_distributions()
    sources = (
        path for folder in ("app", "model", "scripts", "tests", "deploy") for path in (ROOT / folder).rglob("*.py")
    )
    packages = {module.split(".")[0] for path in sources for module in imports(path)} - own
    missing = {p for p in packages if not declared & {canonicalize_name(name) for name in distributions.get(p, [p])}}
    assert not missing


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no clone, so Git cannot list its files")
def test_there_is_no_symbolic_link():
    """Git for Windows writes one as a text file."""
    listed = subprocess.run(["git", "ls-files", "--stage"], cwd=ROOT, text=True, capture_output=True, check=True)
    assert not [line for line in listed.stdout.splitlines() if line.startswith("120000")]


def locked(path: Path) -> Iterator[Requirement]:
    for line in path.read_text().splitlines():
        if line and line[0] not in " #":
            yield Requirement(line.rstrip("\\ "))


@pytest.mark.parametrize("file", ["serve.txt", "image.txt", "train.txt", "dev.txt"])
def test_the_requirements_pin_the_extras_that_are_asked_for(file):
    """Where the lock says ``coverage`` alone, older pips take ``coverage[toml]`` for another, unpinned package."""
    pins = {canonicalize_name(pin.name): pin for pin in locked(ROOT / "requirements" / file)}
    for pin in pins.values():
        if pin.marker and not pin.marker.evaluate():
            continue
        for line in requires(pin.name) or []:
            requirement = Requirement(line)
            if any(not requirement.marker or requirement.marker.evaluate({"extra": e}) for e in ("", *pin.extras)):
                assert requirement.extras <= pins[canonicalize_name(requirement.name)].extras, f"{pin} asks for {line}"


def test_the_changelog_and_the_installed_package_have_the_version():
    from app import VERSION

    assert version("fashionnet") == VERSION
    assert f"## {VERSION}" in (ROOT / "CHANGELOG.md").read_text()
