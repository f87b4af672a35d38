"""Bring the images in: from a zip, a folder, Kaggle, or drawn. Writes data/raw/ with source.json,
and data/source_state.json.

    python -m tasks.download
    python -m tasks.download --source    print the state of the source and bring nothing: another
    text once the source has changed

Whatever the source looks like, data/raw/ has one layout: images/SPLIT/CLASS/NAME, photographs/NAME,
source.json.
"""

import json
import sys

from hemotune.command import ArgumentParser
from hemotune.errors import StudyError, entry_point
from hemotune.files import new_folder, write_json
from hemotune.settings.dataset import Dataset
from hemotune.settings.reading import read_profile
from tasks.download.sources import RAW, STATE, bring, describe, source_state


@entry_point
def main(*arguments: str) -> None:
    parser = ArgumentParser(__package__, __doc__)
    parser.add_argument(
        "--source", action="store_true", help="print the state of the source, and bring nothing"
    )
    options = parser.parse_args(arguments)

    dataset = read_profile("dataset", Dataset)
    if options.source:
        print(json.dumps(source_state(dataset), sort_keys=True))
        return
    with new_folder(RAW) as folder:
        source = bring(dataset, folder)
        ignored, state = source.pop("ignored"), source.pop("state")
        source |= {
            "source": dataset.source,
            "ignored": ignored.total(),
            "ignored_kinds": ignored,
        } | describe(folder)
        if not source["images"]:
            raise StudyError(f"{dataset.source}: {source['reference']}: gave no images")
        write_json(folder / "source.json", source)
    write_json(STATE, state)
    for split, classes in source["splits"].items():
        print(f"{split}: " + ", ".join(f"{name} {count}" for name, count in classes.items()))
    left = (
        f", ignored {ignored.total()}"
        f" ({', '.join(f'{count} {kind}' for kind, count in ignored.most_common())})"
        if ignored
        else ""
    )
    print(
        f"{RAW}: {source['images']} images and {source['photographs']} photographs from"
        f" {source['reference']}{left}"
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
