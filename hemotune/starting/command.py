"""The command `hemotune init`."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError

from hemotune.errors import StudyError
from hemotune.files import write_text
from hemotune.settings.__main__ import check
from hemotune.settings.dataset import Groups
from hemotune.starting.choices import BACKBONE, EXPERIMENTS, Choices, choose, name_of
from hemotune.starting.machine import this_machine
from hemotune.starting.survey import NameGroups, Survey, groups_in_names, look
from hemotune.starting.writing import params_text, profile_text, sizes_text

PARAMS, PROFILES = Path("params.yaml"), Path("profiles")
BELOW_CLASSES = Groups(pattern="CLASS/{group}/*")


def init(path: str, name: str | None, groups: str | None, weights: str, force: bool) -> None:
    """Write profiles/NAME.yaml and params.yaml for the images at `path`, a folder or a zip.

    Args:
        name: of the profile; by default that of the folder or zip.
        groups: a pattern or a CSV file, as in dataset.groups.
        weights: random, imagenet, or a weights file.
        force: overwrite what is there.

    Raises:
        StudyError: the images cannot be studied, or a file would be overwritten.
    """
    name = name_of(name or path)
    profile = PROFILES / f"{name}.yaml"
    if not force:
        refuse_to_overwrite(profile)
    refuse_other_weights(weights)
    given = groups_from(groups)
    survey = look(path, given)
    suggested = None
    if survey.groups_are_folders:
        given = BELOW_CLASSES
    elif not survey.groups and (suggested := groups_in_names(survey)) and agreed(suggested):
        given = Groups(pattern=suggested.pattern)
        survey, suggested = look(path, given), None
    choices = choose(survey, this_machine(), name, weights)
    write(profile, profile_text(survey, choices, given, suggested), params_text(choices))
    print_summary(survey, choices, suggested, profile)


def refuse_to_overwrite(profile: Path) -> None:
    """Check that nothing would be lost: there is no such profile, and git has params.yaml.

    Raises:
        StudyError: something would be.
    """
    if profile.exists():
        raise StudyError(f"{profile} exists: choose another name by --name, or add --force")
    if PARAMS.exists() and not is_committed(PARAMS):
        raise StudyError(
            f"{PARAMS} has changes that git does not have: commit them, or add --force to lose them"
        )


def is_committed(path: Path) -> bool:
    """Whether git holds the file as it is."""
    try:
        known = subprocess.run(
            ["git", "ls-files", "--error-unmatch", path], capture_output=True, timeout=60
        )
        same = subprocess.run(
            ["git", "status", "--porcelain", "--", path], capture_output=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return known.returncode == 0 and same.returncode == 0 and not same.stdout.strip()


def refuse_other_weights(weights: str) -> None:
    """Raise StudyError if these are no weights for a user's own images."""
    if weights in ("random", "imagenet"):
        return
    if not weights.endswith((".weights.h5", ".keras")):
        raise StudyError(
            f"--weights {weights}: should be random, imagenet, or a file of {BACKBONE} that ends in"
            " .weights.h5 or .keras"
        )
    if not Path(weights).expanduser().is_file():
        raise StudyError(f"--weights {weights}: there is no such file; correct the path")


def groups_from(text: str | None) -> Groups:
    """Return the groups that the option --groups gives."""
    if not text:
        return Groups()
    if text.lower().endswith(".csv"):
        return Groups(file=text)
    try:
        return Groups(pattern=text)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise StudyError(f"--groups: {reason}; or it is a table whose name ends in .csv") from None


def agreed(suggested: NameGroups) -> bool:
    """Ask, at a terminal, whether the beginnings of the file names are groups."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    answer = input(
        f"The file names have {suggested.groups:,} beginnings such as {suggested.example}. Is each"
        " a patient, a slide or the like,\nwhose images must not be on both sides of a test? [y/N] "
    )
    return answer.strip().lower() in ("y", "yes")


def write(profile: Path, profile_content: str, params_content: str) -> None:
    """Write both files, after a check of them as `hemotune run` makes it."""
    with TemporaryDirectory() as folder:
        write_text(Path(folder) / profile, profile_content)
        write_text(Path(folder) / PARAMS, params_content)
        check(folder)
    write_text(profile, profile_content)
    write_text(PARAMS, params_content)


def print_summary(
    survey: Survey, choices: Choices, suggested: NameGroups | None, profile: Path
) -> None:
    """Print what was found, what was written, and what to do next."""
    counts = survey.classes.values()
    print(
        f"{survey.path}: {sum(counts):,} images of {len(counts)} classes ({min(counts):,} to"
        f" {max(counts):,} each), {sizes_text(survey)} px, {', '.join(survey.modes())}"
    )
    if set(survey.splits) != {"ALL"}:
        print("splits: " + ", ".join(f"{name} {count:,}" for name, count in survey.splits.items()))
    if survey.groups:
        print(f"groups: {len(set(survey.groups.values())):,}")
    elif suggested:
        print(
            f"groups: none given. The file names have {suggested.groups:,} beginnings such as"
            f" {suggested.example}: if each is a patient or the like, add --groups"
            f" '{suggested.pattern}'"
        )
    for rule, (severity, why) in choices.severities.items():
        print(f"{rule}: {severity}: {why}")
    print(
        f"wrote {profile} and {PARAMS}: {len(EXPERIMENTS)} trainings of {BACKBONE} at"
        f" {choices.size} px, {choices.epochs} epochs each, about {choices.minutes} min on"
        f" {choices.machine}. Next: hemotune run"
    )
