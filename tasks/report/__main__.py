"""Write the study's report: reports/study.md in the format of the original, results.csv,
times.csv, summary.csv, figures/ and model_card.md. Copy the best model to data/models/best.

python -m tasks.report                   fail if a run of params.yaml is missing
python -m tasks.report --incomplete      report the finished runs and list the others as failed
python -m tasks.report --without-images  show no images of the data set, whose licence may not allow
                                         their publication
"""

import sys

from hemotune.command import ArgumentParser
from hemotune.errors import entry_point


@entry_point
def main(*arguments: str) -> None:
    parser = ArgumentParser(__package__, __doc__)
    parser.add_argument(
        "--incomplete",
        action="store_true",
        help="report the finished runs and list the others as failed",
    )
    parser.add_argument(
        "--without-images", action="store_true", help="show no images of the data set"
    )
    options = parser.parse_args(arguments)
    # Loads what draws and computes, which takes seconds: not for help or wrong arguments.
    from tasks.report.run import write_report

    write_report(options.incomplete, not options.without_images)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
