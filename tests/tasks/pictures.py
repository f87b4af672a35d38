"""Pictures on disk, and what the pass over them finds."""

import numpy as np
from PIL import Image

from hemotune import inventory


def picture(seed, size=(160, 120)):
    """A picture with detail at every scale, as photographs have."""
    random = np.random.default_rng(seed)
    total = np.zeros((size[1], size[0], 3))
    for cells in (4, 8, 16, 32, 64):
        layer = Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
        total += np.asarray(layer, dtype=float) / 5
    return Image.fromarray(total.astype(np.uint8))


def save(folder, path, image, **options):
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    image.save(target, **options)
    return target


def fill(folder, counts, start=0):
    """Save `counts` {SPLIT/CLASS: number} of different pictures."""
    for place, count in counts.items():
        for number in range(count):
            save(folder, f"{place}/{number}.jpeg", picture(start), quality=90)
            start += 1


def take(folder, target, size=48, processes=2, fit="squeeze"):
    paths, folders = inventory.list_images(folder)
    return inventory.take_inventory(folder, paths, size, target, processes, fit=fit), folders
