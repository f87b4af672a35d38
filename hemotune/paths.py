"""Where stages and flows read and write, relative to the repository's top folder.

dvc.yaml has the same.
"""

from pathlib import Path

ORIGINALS = Path("profiles/originals")  # NAME/: a study to reproduce, see hemotune/original.py
RAW = Path("data/raw")  # source.json, images/SPLIT/CLASS/NAME and photographs/NAME
RAW_IMAGES = RAW / "images"
# The group of each image, by its path in RAW_IMAGES, where groups are given
GIVEN_GROUPS = RAW / "groups.csv"
SOURCE = RAW / "source.json"
# Not in RAW: a source that was touched but has the same images reruns no other stage.
SOURCE_STATE = Path("data/source_state.json")
INVENTORY = Path("data/inventory.parquet")  # a row for each image
PIXELS = Path("data/images.npy")  # uint8 (image, height, width, 3), in the order of INVENTORY
RECIPE = Path("data/images.json")  # how an image file became pixels
VALIDATION = Path("reports/validation")
PHOTOGRAPHS = Path("data/photographs.parquet")
SPLITS = Path("data/splits")  # TRAINING.json
BACKBONES = Path("data/backbone")  # NAME/
MODELS = Path("data/models")  # KEY/
BEST = MODELS / "best"  # a copy of one of them
RESULTS = Path("data/results")  # KEY/
CONTROLS = Path("data/controls.json")

STATE = Path(".study")  # of running processes, outside DVC; git-ignored
FAILURES = STATE / "failures"  # KEY.json for each stage that failed: its reason
RESUME = STATE / "resume"  # KEY/ for each fine-tune that was interrupted
