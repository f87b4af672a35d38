"""Fetch the images (from a zip, a folder or Kaggle, or drawn) and write them to data/raw/.

    python -m tasks.download
    python -m tasks.download --source    print the state of the source without fetching it; the
    output changes when the source does

The layout of data/raw/ is the same for all sources: images/SPLIT/CLASS/NAME, photographs/NAME,
source.json and, where groups are given, groups.csv. The state of the source is written to
data/source_state.json.
"""

import json
import sys

from hemotune.command import ArgumentParser
from hemotune.errors import StudyError, entry_point
from hemotune.files import new_folder, write_json
from hemotune.paths import RAW, SOURCE_STATE
from hemotune.settings.dataset import Dataset
from hemotune.settings.reading import read_profile
from tasks.download.sources import contents_of, fetch, source_state


@entry_point
def main(*arguments: str) -> None:
    parser = ArgumentParser(__package__, __doc__)
    parser.add_argument(
        "--source", action="store_true", help="print the state of the source without fetching it"
    )
    options = parser.parse_args(arguments)

    dataset = read_profile("dataset", Dataset)
    if options.source:
        print(json.dumps(source_state(dataset), sort_keys=True))
        return
    with new_folder(RAW) as folder:
        fetched = fetch(dataset, folder)
        contents = contents_of(folder)
        if not contents.images:
            raise StudyError(f"{dataset.source}: {fetched.reference}: contains no images")
        source = {
            "source": dataset.source,
            "reference": fetched.reference,
            "version": fetched.version,
            "ignored": fetched.ignored.total(),
            "ignored_kinds": fetched.ignored,
        }
        write_json(folder / "source.json", source | vars(contents))
    write_json(SOURCE_STATE, fetched.state)
    for split, classes in contents.splits.items():
        print(f"{split}: " + ", ".join(f"{name} {count}" for name, count in classes.items()))
    kinds = ", ".join(f"{count} {kind}" for kind, count in fetched.ignored.most_common())
    left_out = f", ignored {fetched.ignored.total()} ({kinds})" if kinds else ""
    if contents.groups:
        print(f"{contents.groups} groups are given")
    photographs = f" and {contents.photographs} photographs" if contents.photographs else ""
    print(f"{RAW}: {contents.images} images{photographs} from {fetched.reference}{left_out}")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
