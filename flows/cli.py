"""The command line, `hemotune`.

Each command imports its module itself: Prefect and DVC take seconds to load, and help needs none.
"""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ParamSpec

import typer

from hemotune.errors import StudyError, entry_point

P = ParamSpec("P")
app = typer.Typer(
    help="Fine-tuning studies of images. Run it from the top folder of a checkout.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def command_anywhere(action: Callable[P, int | None]) -> Callable[P, None]:
    """Make `action` a command: its errors are one line, its result is the exit status."""

    @app.command()
    @functools.wraps(action)
    def run_command(*args: P.args, **kwargs: P.kwargs) -> None:
        raise typer.Exit(entry_point(action)(*args, **kwargs))

    return run_command


def command(action: Callable[P, int | None]) -> Callable[P, None]:
    """Make `action` a command that is run from the top folder of a checkout."""

    @functools.wraps(action)
    def in_checkout(*args: P.args, **kwargs: P.kwargs) -> int | None:
        for name in ("dvc.yaml", "params.yaml"):
            if not Path(name).exists():
                raise StudyError(f"{name} is missing: run from the top folder of a checkout")
        return action(*args, **kwargs)

    return command_anywhere(in_checkout)


@command
def init(
    path: Annotated[
        str, typer.Argument(metavar="FOLDER|ZIP", help="Images in class folders, or a zip.")
    ],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the profile; default: the folder's.")
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN|CSV",
            help="Which images come from one patient, slide or the like: a pattern such as"
            " '{group}_*.png' or 'CLASS/{group}/*', or a table with the columns path and group.",
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            metavar="WEIGHTS",
            help="Initial weights: random, imagenet (Keras downloads them), or a"
            " .weights.h5 or .keras file.",
        ),
    ] = "random",
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
) -> None:
    """Write settings for a study of your own images."""
    from hemotune.starting import command  # neither Prefect nor DVC: seconds less

    command.init(path, name, groups, weights, force)


def check_per_gpu(text: str) -> str:
    """Return the value of --per-gpu if it is `auto` or a number from 1."""
    if text != "auto" and not re.fullmatch("[1-9][0-9]*", text):
        raise typer.BadParameter(f"{text!r} is neither auto nor a number from 1")
    return text


@command
def run(
    slots: Annotated[
        str,
        typer.Option(
            metavar="DEVICES",
            help="Devices on which fine-tunes run, one on each: ids such as 0,1 for two GPUs, or"
            " cpu,cpu for two at a time on the CPU. auto: all GPUs, or cpu,cpu if there is none.",
        ),
    ] = "auto",
    per_gpu: Annotated[
        str,
        typer.Option(
            metavar="N",
            callback=check_per_gpu,
            help="How many fine-tunes share each device. auto: as many as a GPU's memory holds.",
        ),
    ] = "auto",
    force: Annotated[
        str,
        typer.Option(
            metavar="STAGES", help="Stages to run even if nothing changed, separated by commas."
        ),
    ] = "",
    dask: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="A Dask scheduler, on whose workers the fine-tunes run."
        ),
    ] = None,
) -> int:
    """Run the stages of dvc.yaml that have changed, in parallel."""
    from flows import study

    names = [name for name in force.split(",") if name]
    return study.run(slots, "auto" if per_gpu == "auto" else int(per_gpu), names, dask)


@command
def ui(
    host: Annotated[
        str | None,
        typer.Option(
            help="Address to listen on; default: 127.0.0.1. 0.0.0.0 admits other machines."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Default: 4200, or a free port if that is taken."),
    ] = None,
    watch: Annotated[
        str,
        typer.Option(metavar="CRON", envvar="HEMOTUNE_WATCH", help="When to check for changes."),
    ] = "0 6 * * *",
    timezone: Annotated[
        str | None,
        typer.Option(
            metavar="ZONE",
            envvar="HEMOTUNE_TIMEZONE",
            help="Time zone of --watch, such as Europe/Berlin; default: this machine's.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the deployments; default: study and watch, or this folder's name if"
            " PREFECT_API_URL names a server."
        ),
    ] = None,
) -> int:
    """Watch, start and schedule studies in a browser."""
    from flows import serve

    return serve.serve(host, port, watch, timezone, name)


@command_anywhere
def predict(
    images: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE|FOLDER|-",
            help="An image, a folder with images at any depth, or - for one on standard input.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="KEY|FILE",
            help="A training of the study (a folder in data/models) or a model.keras; default:"
            " data/models/best.",
        ),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per line.")
    ] = False,
    explain: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write a heat map of each image to this folder: what speaks for its class.",
        ),
    ] = None,
) -> int:
    """Predict the class of images with a trained model."""
    # No flow: nothing of Prefect is loaded.
    from hemotune.prediction import command as prediction
    from hemotune.prediction.output import Format

    if as_csv and as_json:
        raise StudyError("--csv and --json exclude each other: give one of them")
    form: Format = "csv" if as_csv else "json" if as_json else "text"
    return prediction.predict(images, model, form, explain)


@command
def watch() -> int:
    """Run the study if its data, parameters or code changed."""
    from flows import watch

    return watch.run()


@command
def notify(
    address: Annotated[
        str | None,
        typer.Argument(
            help="https://..., which gets JSON, or an address of Apprise, such as"
            " mailtos://NAME:PASSWORD@example.org?to=me@example.org."
        ),
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Stop the notifications.")] = False,
) -> None:
    """Notify an address when a scheduled study fails or works again."""
    from flows import notify

    notify.notify(address, off)


@command
def status() -> None:
    """Show what is running, what has failed and what has changed."""
    from flows import status

    status.show()


@command
def clean(
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
) -> None:
    """Remove what deleted experiments left, after asking."""
    from flows import clean

    clean.remove(yes)


@command
def doctor() -> int:
    """Show what a run finds on this machine, and what is wrong with it."""
    from flows import doctor

    return doctor.examine()


@command_anywhere
def audit(
    path: Annotated[
        Path,
        typer.Argument(metavar="FOLDER|ZIP", help="Images in class folders, or a zip."),
    ],
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="PAGE", help="Also write an HTML page with the pictures to this file."
        ),
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A profile whose section dataset names splits, classes or groups, if the folder"
            " names do not tell.",
        ),
    ] = None,
) -> int:
    """Find copies, groups and odd files in a set of images.

    Exit status: 1 if the set's own test images have copies in training, 2 for bad input.
    """
    from hemotune.audit import command

    return command.audit(path, html, profile)


if __name__ == "__main__":
    app()
