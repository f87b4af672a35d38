"""Remove what stages made that are no longer in dvc.yaml: models, results and initial weights of
removed experiments.

A stage of a matrix writes its own outputs under its own name, `data/models/KEY` for finetune@KEY. A
file beside them under another name belongs to no stage.
"""

import shutil
from pathlib import Path

from flows import repository
from flows.lock import sole_study
from hemotune.errors import StudyError
from hemotune.paths import FAILURES, RESUME


def leftovers() -> list[Path]:
    """Return the files and folders that belong to stages which dvc.yaml no longer has, sorted.

    Raises:
        StudyError: DVC cannot read its files.
    """
    from dvc.exceptions import DvcException

    kept: dict[Path, set[str]] = {}  # folder: names in it that belong to a stage
    others: list[Path] = []  # outputs of stages that are in no matrix
    try:
        with repository.open_repo() as repo:
            root = Path(repo.root_dir)
            for stage in repo.index.stages:
                key = stage.addressing.rpartition("@")[2]
                kept.setdefault(FAILURES, set()).add(f"{key}.json")
                kept.setdefault(RESUME, set()).add(key)
                for path in (Path(out.fs_path).relative_to(root) for out in stage.outs):
                    if key in path.parts and "@" in stage.addressing:
                        kept.setdefault(Path(*path.parts[: path.parts.index(key)]), set()).add(key)
                    else:  # beside those of a matrix, as data/models/best is
                        others.append(path)
    except DvcException as error:
        raise StudyError(f"dvc: {error}") from None
    for path in others:
        if path.parent in kept:
            kept[path.parent].add(path.name)
    # A temporary file of hemotune.files may be in use now, by `dvc repro`.
    return sorted(
        path
        for folder, names in kept.items()
        for path in folder.glob("*")
        if path.name.removeprefix(".").removesuffix(".partial") not in names
    )


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def remove(yes: bool) -> None:
    """List the leftovers and remove them: if `yes`, without a question.

    Raises:
        AnotherStudy: a study runs in this checkout.
        StudyError: DVC cannot read its files.
    """
    with sole_study():
        found = leftovers()
        if not found:
            print("nothing to remove: everything belongs to a stage of dvc.yaml")
            return
        for path in found:
            print(f"{size_of(path) / 1e6:10,.1f} MB  {path}")
        print(
            "No stage of dvc.yaml makes these. DVC's cache keeps its copies, from which an"
            " experiment that is added again is restored."
        )
        if not yes and not confirmed(f"Remove {len(found)} files and folders? [y/N] "):
            print("nothing was removed")
            return
        for path in found:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    print(
        f"removed {len(found)} files and folders; `dvc gc -w` removes from DVC's cache whatever is"
        " not of this workspace"
    )


def confirmed(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


if __name__ == "__main__":
    raise SystemExit("error: flows.clean is not a command: use `hemotune clean`")
