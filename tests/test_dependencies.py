"""What dvc.yaml says that a stage depends on, against what the stage's code imports and reads."""

import ast
import contextlib
import copy
import functools
import io
import shutil
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from hemotune.settings.__main__ import check
from hemotune.settings.profile import Profile
from hemotune.settings.reading import read
from tests.conftest import ROOT, commit_workspace, make_workspace, run, stand_in

# Where the code of a stage lies.
CODE = ("hemotune/", "tasks/")
# What is needed everywhere and decides no result; a path is in dvc.yaml too.
EXEMPT = {
    "hemotune/command.py",
    "hemotune/errors.py",
    "hemotune/files.py",
    "hemotune/paths.py",
    "hemotune/progress.py",
}
STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]


@functools.cache
def imported(module):
    """The files of CODE that `python -m MODULE` may load, imports within functions included."""
    found, waiting = set(), [module]
    while waiting:
        path = ROOT / waiting.pop().replace(".", "/")
        for file in (path.with_suffix(".py"), path / "__init__.py", path / "__main__.py"):
            name = file.relative_to(ROOT).as_posix()
            if (
                name in found
                or not name.startswith(CODE)
                or not file.exists()
                or not has_code(file)
            ):
                continue
            found.add(name)
            waiting += named(file)
    return found


def named(file):
    """The dotted names of all that a file imports: modules, and what it takes from them."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def has_code(file):
    """Whether a module holds more than a docstring, as a package's __init__.py may not."""
    return not all(isinstance(node, ast.Expr) for node in ast.parse(file.read_text()).body)


@functools.cache
def keys_read(stage):
    """The calls of read_params and read_profile in the code of a stage, as [(function, key)]; `*`
    stands for what the key is made of.
    """
    calls = []
    for file in imported(f"tasks.{stage}"):
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
                "read_params",
                "read_profile",
            ):
                parts = (
                    node.args[0].values
                    if isinstance(node.args[0], ast.JoinedStr)
                    else [node.args[0]]
                )
                calls.append(
                    (
                        node.func.id,
                        "".join(
                            part.value if isinstance(part, ast.Constant) else "*" for part in parts
                        ),
                    )
                )
    return calls


def test_layers_import_only_downwards_and_no_stage_another():
    """The contracts of import-linter in pyproject.toml."""
    result = run([Path(sys.executable).with_name("lint-imports"), "--no-cache"], ROOT)
    assert result.returncode == 0, result.stdout
    assert "Contracts: 4 kept, 0 broken" in result.stdout


def test_tasks_holds_the_stages_and_nothing_else():
    assert {file.relative_to(ROOT / "tasks").parts[0] for file in ROOT.glob("tasks/**/*.py")} == {
        "__init__.py",
        *STAGES,
    }


def test_what_is_exempt_imports_nothing_that_is_not():
    for file in EXEMPT:
        assert imported(file.removesuffix(".py").replace("/", ".")) <= EXEMPT


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_exactly_the_code_that_it_imports(stage):
    """A module left out would keep an old result when it changes; one too many would repeat the
    stage for nothing.
    """
    deps = [ROOT / dep for dep in STAGES[stage]["deps"] if dep.startswith(CODE)]
    files = [file for dep in deps for file in (dep.glob("*.py") if dep.is_dir() else [dep])]
    assert {file.relative_to(ROOT).as_posix() for file in files if has_code(file)} == imported(
        f"tasks.{stage}"
    ) - EXEMPT


def test_a_stage_depends_on_its_templates():
    for file in ROOT.glob("tasks/*/**/*.html"):
        stage = file.relative_to(ROOT / "tasks").parts[0]
        assert file.parent.relative_to(ROOT).as_posix() in STAGES[stage]["deps"], file


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A repository in which DVC holds every stage for done; its profile names every key that there
    is. It is the current folder.
    """
    folder = make_workspace(tmp_path_factory.mktemp("finished"))
    profile = folder / "profiles/tiny.yaml"
    profile.write_text(yaml_of(read(profile, "", Profile).model_dump()))
    commit_workspace(folder)
    stand_in(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def yaml_of(values):
    text = io.StringIO()
    YAML(typ="safe", pure=True).dump(values, text)
    return text.getvalue()


@contextlib.contextmanager
def instead(path, text):
    """The file `path` with another content, for a while."""
    before = path.read_text()
    path.write_text(text)
    try:
        yield
    finally:
        path.write_text(before)


def changed(repo):
    """The stages that DVC names as changed, of dvc.yaml and params.yaml as they were when `repo`
    first read them.
    """
    return {
        stage.addressing for stage in repo.index.stages if any(dep.status() for dep in stage.deps)
    }


@pytest.mark.slow
def test_editing_a_module_changes_the_stages_that_import_it_and_no_other(finished):
    repo = Repo()
    assert changed(repo) == set()
    files = [file for folder in CODE for file in sorted(finished.glob(f"{folder}**/*.py"))]
    for file in filter(has_code, files):
        name = file.relative_to(finished).as_posix()
        with instead(file, file.read_text() + "# edited\n"):
            stages = {address.partition("@")[0] for address in changed(repo)}
        assert stages == {
            stage for stage in STAGES if name in imported(f"tasks.{stage}") - EXEMPT
        }, name


def keys_of(values, above=""):
    """The dotted keys of all values that are no dictionaries."""
    for key, value in values.items():
        yield from (
            keys_of(value, f"{above}{key}.") if isinstance(value, dict) else [f"{above}{key}"]
        )


def with_another(values, key):
    """A copy of nested dictionaries in which the value at a dotted key is another one."""
    values = copy.deepcopy(values)
    *above, last = key.split(".")
    section = functools.reduce(dict.get, above, values)
    value = section[last]
    match value:
        case list():
            section[last] = [
                *value,
                value[0] + 1 if value and isinstance(value[0], int) else "other",
            ]
        case str() | None:
            section[last] = "other"
        case _:
            section[last] = value + 1
    return values


def readers(stages, function, key):
    """Those of `stages` whose code reads `key` by `function`."""
    found = set()
    for address in stages:
        stage, _, item = address.partition("@")
        read = [
            what.replace("*", item.partition("-")[0])
            for who, what in keys_read(stage)
            if who == function
        ]
        if any(what in ("", key) or key.startswith(f"{what}.") for what in read):
            found.add(address)
    return found


@pytest.mark.parametrize(
    ("file", "function"), [("params.yaml", "read_params"), ("profiles/tiny.yaml", "read_profile")]
)
def test_changing_a_key_changes_the_stages_that_read_it_and_no_other(finished, file, function):
    shutil.copy("profiles/tiny.yaml", "profiles/other.yaml")
    values = YAML(typ="safe", pure=True).load(Path(file).read_text())
    repo = Repo()
    stages = {stage.addressing for stage in repo.index.stages}
    for key in keys_of(values):
        with instead(Path(file), yaml_of(with_another(values, key))):
            # What the matrix is made of is read once
            repo = Repo() if file == "params.yaml" else repo
            assert changed(repo) & stages == readers(stages, function, key), key


def test_dvc_requires_no_key_that_the_settings_call_optional(finished):
    least = {"dataset": {"source": "sample"}, "images": {"size": 32}, "validation": {}, "split": {}}
    least |= {"backbone": {"weights": "random"}, "training": {"epochs": 1}, "report": {}}
    with instead(Path("profiles/tiny.yaml"), yaml_of(least)):
        check(finished)
        for stage in Repo().index.stages:
            for dependency in stage.deps:
                dependency.save()  # raises an error where a key is missing
