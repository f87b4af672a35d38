"""Write the study's report: reports/study.md in the shape of the published one, results.csv,
times.csv, figures/ and model_card.md.

python -m tasks.report                   every run that params.yaml names must be there
python -m tasks.report --incomplete      report what is there, and name what is missing as failed
python -m tasks.report --without-images  draw no image of the data set, for a report that is
published where its licence does not reach
"""

import sys
from pathlib import Path

from hemotune.command import ArgumentParser
from hemotune.errors import StudyError, entry_point
from hemotune.files import new_file, new_folder, read_json, write_text
from hemotune.markup import code, escaped
from tasks.report import figures
from tasks.report.evidence import add_intervals, evidence_section
from tasks.report.experiments import (
    TABLE_HEAD,
    basic_settings,
    experiment_sections,
    result_rows,
    result_section,
)
from tasks.report.findings import findings_section
from tasks.report.markdown import counted, listed, plain, plain_table, rate
from tasks.report.mistakes import draw_mistakes, mistakes_section
from tasks.report.model_card import write_card
from tasks.report.original import published_section
from tasks.report.results import (
    TIMES,
    by_series,
    read_runs,
    read_split,
    results_table,
    summaries_of,
)
from tasks.report.software import software_warnings
from tasks.report.study import read_study
from tasks.report.trust import warnings_of

PROTOCOLS = {
    "random": (
        "`random` (TRAIN and TEST merged, then split at random, so copies of one photograph fall"
        " on both sides)"
    ),
    "held-out": (
        "`held-out` (the data set's own TEST is the test, validation is cut off TRAIN by"
        " photograph)"
    ),
}


@entry_point
def main(*arguments: str) -> None:
    parser = ArgumentParser(__package__, __doc__)
    parser.add_argument(
        "--incomplete",
        action="store_true",
        help="report the runs that are there, name the missing ones as failed",
    )
    parser.add_argument(
        "--without-images", action="store_true", help="draw no image of the data set"
    )
    options = parser.parse_args(arguments)

    root = Path(".")
    study = read_study(root)
    runs = read_runs(root, study.params, options.incomplete)
    validation = read_validation(root)
    source, controls = (
        read_if_there(root / "data/raw/source.json"),
        read_if_there(root / "data/controls.json"),
    )
    sizes = {protocol: sizes_of(read_split(root, protocol)) for protocol in study.params.protocols}
    summaries = summaries_of(runs)
    say(0.1, "intervals")
    add_intervals(summaries)
    say(0.3, "figures")
    warnings = warnings_of(summaries, controls)
    warnings += software_warnings(runs)

    reports = root / "reports"
    with new_folder(reports / "figures") as folder:
        links = draw_figures(folder, summaries)
        say(0.6, "where the models err")
        links |= draw_mistakes(folder, summaries, *read_images(root, options.without_images))
    say(0.8, "comparisons")
    page = None if options.without_images else "validation/index.html"
    text = write_study(study, summaries, validation, page, source, sizes, controls, warnings, links)
    write_text(reports / "study.md", text)
    held_out = warnings_of(
        [summary for summary in summaries if summary["protocol"] == "held-out"], controls
    )
    write_text(
        reports / "model_card.md", write_card(study, summaries, controls, source, sizes, held_out)
    )
    table = results_table(runs)
    for name, columns in (
        ("results.csv", table.columns.difference(TIMES, sort=False)),
        ("times.csv", ["key", *TIMES]),
    ):
        with new_file(reports / name) as temporary:
            table[columns].to_csv(temporary, index=False, lineterminator="\n")

    summary = summarise(study, summaries, runs, warnings)
    write_text(reports / "summary.txt", summary)
    print(f"\n{summary}", end="")


def summarise(study, summaries, runs, warnings):
    """Return the results tables and where the report lies, as plain text for a terminal."""
    lines = []
    for name, group in by_series(summaries).items():
        lines += [
            name + (" (sample: drawn images)" if is_sample(study) else ""),
            plain_table(TABLE_HEAD, result_rows(group)),
            "",
        ]
    lines += [plain(f"failed: {reason}") for reason in failures(runs)]
    lines += [plain(warning) for warning in warnings]
    lines += [
        "The report is reports/study.md, its numbers are reports/results.csv, its figures"
        " reports/figures/"
    ]
    return "\n".join(lines) + "\n"


def say(share, what):
    """Tell how far the report is, in the form that flows/ reads; a full one takes half a minute on
    two slow cores.
    """
    print(f"[{share:4.0%}] report: {what}", flush=True)


def read_validation(root):
    path = root / "reports/validation/result.json"
    if not path.exists():
        raise StudyError(f"{path.relative_to(root)} is missing: run `dvc repro validate`")
    return read_json(path)


def read_if_there(path):
    return read_json(path) if path.exists() else {}


def read_images(root, without):
    """Return the paths of the inventory, and the memory-mapped images in the same order (None if
    they are not to be shown).
    """
    import numpy
    import pandas

    paths = list(pandas.read_parquet(root / "data/inventory.parquet", columns=["path"])["path"])
    path = root / "data/images.npy"
    return paths, None if without or not path.exists() else numpy.load(path, mmap_mode="r")


def sizes_of(images):
    """Return the numbers of train, validation and test images of what results.read_split
    returned.
    """
    return (
        images.attrs["train"],
        int((images["split"] == "validation").sum()),
        int((images["split"] == "test").sum()),
    )


def is_sample(study):
    return study.profile.dataset.source == "sample"


def failures(runs):
    return [f"`{run['key']}`: {escaped(run['failed'])}" for run in runs if run["failed"]]


def draw_figures(folder, summaries):
    """Draw all figures into `folder` and return their links, relative to study.md.

    The keys are (experiment, series) for the curves of an experiment, (None, series) for the curves
    of a whole series, "comparison".
    """
    links, done = {}, [summary for summary in summaries if summary["runs"]]
    for summary in done:
        name = f"{summary['experiment']}-{summary['protocol']}-{summary['backbone']}.png"
        figures.draw_curves(folder / name, summary["runs"], summary["series"])
        links[summary["experiment"], summary["series"]] = f"figures/{name}"
    for series, group in by_series(done).items():
        name = f"validation-{group[0]['protocol']}-{group[0]['backbone']}.png"
        figures.draw_validation_curves(
            folder / name, [summary["runs"][0] for summary in group], series
        )
        links[None, series] = f"figures/{name}"
    if done:
        intervals = {
            (summary["series"], summary["experiment"]): summary["per_image"] for summary in done
        }
        figures.draw_comparison(folder / "result.png", done, intervals)
        links["comparison"] = "figures/result.png"
    return links


def write_study(study, summaries, validation, page, source, sizes, controls, warnings, links):
    """Return the text of study.md.

    Args:
        page: path of the validation's page, None where it is not to be shown: it holds images of
            the data set.
        links: the figures' paths, as draw_figures and draw_mistakes return them.
    """
    params = study.params
    runs = [run for summary in summaries for run in summary["every"]]
    sections = [
        (
            f"# {listed(params.backbones)} fine-tuned on"
            f" {'drawn blood cells (sample)' if is_sample(study) else 'blood cells'}"
        ),
        *notices(study, runs, validation, page, warnings),
        "## 1. What was run",
        what_was_run(study, source, sizes, runs),
        f"## 2. {listed(params.backbones)}: basic settings",
        basic_settings(study),
        *experiment_sections(study, summaries, links),
        f"## 3. The result of {listed(params.backbones)} fine-tuning",
        *result_section(study, summaries, links),
        "## 4. Published beside reproduced",
        *published_section(study, summaries, sizes),
        "## 5. What the accuracies are worth",
        *evidence_section(study, summaries, controls),
        "## 6. Findings by factor",
        *findings_section(summaries),
        "## 7. Where the models err",
        *mistakes_section(summaries, links),
        "## 8. Model card",
        (
            "The best held-out model is described in [model_card.md](model_card.md)."
            if any(run["protocol"] == "held-out" and not run["failed"] for run in runs)
            else "No model was tested on held-out photographs, so there is none."
        ),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def notices(study, runs, validation, page, warnings):
    """Return what a reader must know before any number, a block of quoted Markdown each."""
    found = []
    if is_sample(study):
        found.append(
            "**This is the sample.** Its images are drawn by a generator, small and few. The"
            " figures show that the study runs from end to end; they say nothing about blood cells"
            f" or about what {listed(study.params.backbones)} can do."
        )
    scale = study.profile.training.learning_rate_scale
    if scale != 1:
        found.append(
            f"**Learning rates are scaled.** The profile multiplies every rate by {scale:g}: where"
            f" a table says 1e-5, {rate(1e-5 * scale)} was applied."
        )
    found += warnings
    if missing := failures(runs):
        found.append(
            f"**Incomplete: {len(missing)} of {len(runs)} runs have no results.**\n"
            + "\n".join(f"- {line}" for line in missing)
        )
    broken = [
        rule for rule in validation["rules"] if not rule["passed"] and rule["severity"] != "off"
    ]
    if broken:
        lines = [
            f"- {rule['severity']}: {escaped(rule['description'])} ({what_broke(rule)})"
            for rule in broken
        ]
        where = f" ([all of them]({page}))" if page else ""
        found.append(f"**The data's validation found something**{where}:\n" + "\n".join(lines))
    if off := [f"`{rule['rule']}`" for rule in validation["rules"] if rule["severity"] == "off"]:
        found.append(f"**Rules of the validation that are turned off:** {listed(off)}.")
    return ["> " + text.replace("\n- ", "\n>\n> - ", 1).replace("\n- ", "\n> - ") for text in found]


def what_broke(rule: dict) -> str:
    """Return how many files break a rule and some of them, or why it could not be judged."""
    if not rule["count"]:
        return escaped(rule["found"])
    return f"{rule['count']} found: {few(rule['offenders'])}"


def few(paths, most=3):
    """Name at most `most` files."""
    names = [code(path) for path in paths[:most]]
    return listed(names) + (", …" if len(paths) > most else "")


def what_was_run(study, source, sizes, runs):
    params, profile = study.params, study.profile
    done = [run for run in runs if not run["failed"]]
    lines = [
        f"- Profile: `{params.profile}`" + (" (sample: drawn images)" if is_sample(study) else "")
    ]
    if source:
        version = f", version {escaped(source['version'])}" if source.get("version") else ""
        where = f"`{source['source']}`, {escaped(source['reference'])}{version}"
        lines += [
            f"- Data: {where}; {source['images']:,} images, sha256 `{source['sha256'][:16]}…`"
        ]
    for protocol, (train, validation, test) in sizes.items():
        lines.append(
            f"- Protocol {PROTOCOLS[protocol]}: {train:,} train, {validation:,} validation,"
            f" {test:,} test images"
        )
    lines += [
        f"- Images: decoded to {profile.images.size} × {profile.images.size} pixels",
        (
            f"- Runs: {counted(len(params.experiments), 'experiment')} ×"
            f" {counted(len(params.protocols), 'protocol')} ×"
            f" {counted(len(params.backbones), 'backbone')} ×"
            f" {counted(len(params.repeats), 'repeat')}, {len(done)} of {len(runs)} with results"
        ),
    ]
    for name in ("processor", "threads", "device", "precision"):
        if values := sorted({escaped(run[name]) for run in done}):
            lines.append(f"- {name.capitalize()}: {listed(values)}")
    if done:
        speeds = [run["images_per_second"] for run in done]
        lines.append(f"- Training speed: {min(speeds):,.1f} to {max(speeds):,.1f} images/s")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
