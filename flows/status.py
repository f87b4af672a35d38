"""What is running, what has failed and what has changed in this checkout."""

from flows import repository, server
from flows.lock import find_study
from hemotune.files import read_json
from hemotune.paths import FAILURES


def show() -> None:
    """Print the three of them.

    Raises:
        StudyError: DVC cannot read its files, or a stage runs by `dvc repro`; a setting is wrong.
    """
    study = find_study()
    print(f"running: {study or 'no study'}")
    if api := server.address(of_a_run=True):
        print(f"  {server.page_of(api)}")
    notes = sorted(FAILURES.glob("*.json"))
    print_list(f"failed: {len(notes)}", [f"{n.stem}: {read_json(n)['reason']}" for n in notes])
    if study:  # DVC compares nothing with what a stage is writing
        print("changed: not known while a study runs")
        return
    stages = repository.inspect().stages
    changed = [f"{stage.name}: {'; '.join(stage.changed)}" for stage in stages if stage.changed]
    print_list(f"changed: {len(changed)} of {len(stages)} stages", changed)


def print_list(heading: str, lines: list[str]) -> None:
    print("\n  ".join([heading, *lines]), flush=True)


if __name__ == "__main__":
    raise SystemExit("error: flows.status is not a command: use `hemotune status`")
