"""One drawn photograph of a stained blood smear: red cells, platelets, and one white cell of a
known class.

Light is absorbed as in a stained smear (Beer-Lambert): each structure adds optical density, and a
pixel shows light * exp(-density). Lengths are in heights of the picture, so that the same random
state draws the same scene at any size. NumPy and Pillow only, for speed.
"""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]
Point = tuple[float, float]  # pixels down, and to the right

CLASSES = ("EOSINOPHIL", "LYMPHOCYTE", "MONOCYTE", "NEUTROPHIL")
# Optical density of (red, green, blue) light: two ends between which each photograph's stain lies.
RED_CELL = np.array([[0.09, 0.34, 0.30], [0.13, 0.50, 0.62]], np.float32)
NUCLEUS = np.array([[0.55, 1.25, 0.10], [1.05, 1.30, 0.22]], np.float32)
CYTOPLASM = {
    "EOSINOPHIL": np.array([[0.10, 0.34, 0.16], [0.14, 0.32, 0.24]], np.float32),
    "LYMPHOCYTE": np.array([[0.42, 0.34, 0.06], [0.62, 0.48, 0.10]], np.float32),
    "MONOCYTE": np.array([[0.22, 0.27, 0.04], [0.36, 0.30, 0.10]], np.float32),
    "NEUTROPHIL": np.array([[0.09, 0.27, 0.06], [0.16, 0.25, 0.06]], np.float32),
}
GRANULE = {  # density, and granules across the cell
    "EOSINOPHIL": (np.array([0.12, 0.78, 0.55], np.float32), 19),
    "NEUTROPHIL": (np.array([0.14, 0.24, 0.02], np.float32), 30),
}
# In red cells
RADIUS = {
    "EOSINOPHIL": (1.45, 2.0),
    "LYMPHOCYTE": (1.1, 1.65),
    "MONOCYTE": (1.75, 2.5),
    "NEUTROPHIL": (1.4, 2.0),
}


def draw_photograph(
    rng: np.random.Generator, cell_class: str, width: int, height: int, magnification: float = 1.0
) -> NDArray[np.uint8]:
    """Draw one photograph: uint8 (height, width, 3), RGB, with one white cell of `cell_class`, red
    cells and platelets.

    At magnification 1 the cells are as large in the picture as in the real data set.
    """
    focus = rng.uniform(0.004, 0.014) * height  # width of every edge, in pixels
    focus = max(focus, 1.0)
    tone, tint = rng.uniform(size=2), rng.uniform(0.82, 1.18, size=2)
    red_stain = mix(RED_CELL, tone[0]) * tint[0]
    nucleus_stain = mix(NUCLEUS, tone[1]) * tint[1]
    red_radius = rng.uniform(0.085, 0.112) * height * magnification
    radius = red_radius * rng.uniform(*RADIUS[cell_class])
    # The larger the cells, the nearer the middle, so that as much of them is seen
    reach = 0.4 / magnification
    centre = (
        rng.uniform(0.5 - reach, 0.5 + reach) * height,
        rng.uniform(0.5 - reach, 0.5 + reach) * width,
    )

    red = draw_red_cells(rng, width, height, red_radius, focus, centre, radius)
    density = red[..., None] * red_stain
    for _ in range(rng.poisson(4)):
        draw_platelet(rng, density, red_radius, focus, nucleus_stain)
    draw_white_cell(rng, density, cell_class, centre, radius, focus, nucleus_stain)

    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    slope, fall = rng.normal(0, 0.022, size=2), rng.uniform(0, 0.06)
    colour = rng.uniform(0.79, 0.88) * (1 + rng.normal(0, 0.014, size=3))
    light = (1 + slope[0] * y + slope[1] * x - fall * (x * x + y * y))[..., None] * colour.astype(
        np.float32
    )
    picture = 255 * light.astype(np.float32) * np.exp(-density)
    picture += rng.uniform(1.0, 3.0) * rng.standard_normal(picture.shape, np.float32)
    photograph: NDArray[np.uint8] = np.clip(picture + 0.5, 0, 255).astype(np.uint8)
    return photograph


def mix(ends: Floats, share: float) -> Floats:
    """The point at `share` (0 to 1) between two colours."""
    mixed: Floats = (ends[0] * (1 - share) + ends[1] * share).astype(np.float32)
    return mixed


def step(distance: Floats, width: float) -> Floats:
    """Smooth step from 0 to 1 where `distance` passes through 0; `width` is the edge's, in the same
    unit.
    """
    share: Floats = np.minimum(np.maximum(distance / width + 0.5, 0), 1)
    return share * share * (3 - 2 * share)


def noise(rng: np.random.Generator, cells: int, size: int) -> Floats:
    """Smooth noise of about unit spread: float32 (size, size), with `cells` bumps across."""
    grid = Image.fromarray(rng.standard_normal((cells, cells), np.float32))
    return np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC))


def window(
    centre: Point, half: int, shape: tuple[int, ...]
) -> tuple[tuple[slice, slice], tuple[slice, slice], tuple[int, int], int]:
    """Rows and columns of a square of `half` pixels about `centre`, cut to `shape`, and the same
    cut of the square itself.
    """
    top, left, size = round(centre[0] - half), round(centre[1] - half), 2 * half + 1
    first, last = min(max(top, 0), shape[0]), min(max(top + size, 0), shape[0])
    start, stop = min(max(left, 0), shape[1]), min(max(left + size, 0), shape[1])
    inside = slice(first - top, last - top), slice(start - left, stop - left)
    return (slice(first, last), slice(start, stop)), inside, (top, left), size


def draw_red_cells(
    rng: np.random.Generator,
    width: int,
    height: int,
    radius: float,
    focus: float,
    white_centre: Point,
    white_radius: float,
) -> Floats:
    """Return the thickness of the red cells: (height, width), about 1 inside a cell.

    They keep off the white cell.
    """
    spacing = radius * rng.uniform(2.1, 2.9)
    grid = (
        np.mgrid[-radius : height + radius : spacing, -radius : width + radius : spacing]
        .reshape(2, -1)
        .T
    )
    centres = grid + rng.uniform(-0.5, 0.5, grid.shape) * spacing
    centres = centres[rng.uniform(size=len(centres)) < rng.uniform(0.6, 0.95)]
    # Rouleaux: some cells stick to a neighbour, in a direction that the whole smear shares.
    stuck = centres[rng.uniform(size=len(centres)) < rng.uniform(0, 0.4)]
    angle = rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.5, len(stuck))
    centres = np.concatenate(
        [centres, stuck + 1.25 * radius * np.stack([np.sin(angle), np.cos(angle)], 1)]
    )
    centres = centres[
        np.hypot(*(centres - np.array(white_centre)).T) > white_radius + 0.55 * radius
    ]
    thickness = np.zeros((height, width), np.float32)
    if not len(centres):
        return thickness

    half = int(np.ceil(1.5 * radius + focus))
    top = np.round(centres - half).astype(int)
    span = np.arange(2 * half + 1)
    y = (span + top[:, :1] - centres[:, :1]).astype(np.float32)[:, :, None]
    x = (span + top[:, 1:] - centres[:, 1:]).astype(np.float32)[:, None, :]

    cells = red_cell_shapes(rng, y, x, radius, focus)
    for cell, centre in zip(cells, centres.tolist(), strict=True):
        (rows, columns), inside, _, _ = window(centre, half, thickness.shape)
        part = thickness[rows, columns]
        # Two cells absorb less than twice one cell's
        part += cell[inside] * (1 - 0.65 * np.minimum(part, 1))
    return thickness


def red_cell_shapes(
    rng: np.random.Generator, y: Floats, x: Floats, radius: float, focus: float
) -> Floats:
    """Return the thickness of each red cell: (cells, size, size), about 1 inside.

    Args:
        y: pixels down from each cell's centre, (cells, size, 1).
        x: pixels to the right of it, (cells, 1, size).
    """

    def vary(low: float, high: float) -> Floats:
        return rng.uniform(low, high, (len(y), 1, 1)).astype(np.float32)

    turn, size, long = vary(0, 2 * np.pi), radius * vary(0.82, 1.15), vary(0.84, 1.16)
    u, v = (
        (x * np.cos(turn) + y * np.sin(turn)) / (size * long),
        (y * np.cos(turn) - x * np.sin(turn)) / size * long,
    )
    square = u * u + v * v
    # Three-cornered a little
    away = np.sqrt(square) + vary(-0.08, 0.08) * u * (u * u - 3 * v * v) / (square + 0.05)
    pallor = np.clip(rng.uniform(0.1, 0.85) + rng.normal(0, 0.18, (len(y), 1, 1)), 0, 0.9).astype(
        np.float32
    )
    hollow = (away / rng.uniform(0.42, 0.6)) ** 2
    rim = (away - 0.9) / 0.09
    thickness: Floats = (
        step((1 - away) * radius, focus)
        * vary(0.85, 1.1)
        * (1 - pallor / (1 + hollow * hollow) + 0.22 / (1 + rim * rim))
    )
    return thickness


def draw_platelet(
    rng: np.random.Generator, density: Floats, red_radius: float, focus: float, stain: Floats
) -> None:
    """Add a platelet, a small granular speck, to `density` in place."""
    height, width = density.shape[:2]
    size = red_radius * rng.uniform(0.12, 0.32)
    centre = rng.uniform(0, height), rng.uniform(0, width)
    (rows, columns), inside, corner, span = window(
        centre, math.ceil(1.6 * size + focus), density.shape
    )
    y, x = (
        (np.arange(span) + corner[0] - centre[0])[:, None],
        np.arange(span) + corner[1] - centre[1],
    )
    away = np.hypot(y * rng.uniform(0.8, 1.3), x) / size + 0.12 * noise(rng, 4, span)
    speck = (
        step((1 - away) * size, focus) * (0.5 + 0.1 * noise(rng, 6, span)) * rng.uniform(0.6, 1.2)
    )
    density[rows, columns] += speck[inside][..., None].astype(np.float32) * stain


def draw_white_cell(
    rng: np.random.Generator,
    density: Floats,
    cell_class: str,
    centre: Point,
    radius: float,
    focus: float,
    nucleus_stain: Floats,
) -> None:
    """Add the white cell to `density` in place; red cells below it show through only faintly."""
    half = math.ceil(1.35 * radius + focus)
    (rows, columns), inside, corner, span = window(centre, half, density.shape)
    y = (np.arange(span) + corner[0] - centre[0])[:, None]
    x = np.arange(span) + corner[1] - centre[1]
    turn, long = rng.uniform(0, 2 * np.pi), rng.uniform(0.92, 1.09)
    u = ((x * np.cos(turn) + y * np.sin(turn)) / radius * long).astype(np.float32)
    v = ((y * np.cos(turn) - x * np.sin(turn)) / radius / long).astype(np.float32)
    edge = focus / radius
    ragged = {"MONOCYTE": 0.09, "LYMPHOCYTE": 0.05}.get(cell_class, 0.04)
    away = np.sqrt(u * u + v * v) + ragged * noise(rng, 6, span)
    body = step(1 - away, edge)
    wall = (away - 0.94) / 0.07
    fill = body * (1 + 0.12 * noise(rng, 9, span) + 0.35 / (1 + wall * wall))
    if cell_class == "MONOCYTE":  # ground-glass cytoplasm with vacuoles
        fill *= 1 - 0.8 * granules(rng, u, v, 12, rng.uniform(0.0, 0.25), edge) * step(
            0.85 - away, edge
        )
    nucleus = step(lobed(draw_lobes(rng, cell_class), u, v), edge) * np.minimum(body * 1.5, 1)
    clumps = {"LYMPHOCYTE": (0.07, 9), "MONOCYTE": (0.13, 13)}.get(cell_class, (0.16, 12))
    clumped = 1 + clumps[0] * noise(rng, clumps[1], span) + 0.06 * noise(rng, 25, span)
    chromatin = nucleus * clumped
    depth = {"LYMPHOCYTE": (0.9, 1.35), "MONOCYTE": (0.7, 1.1)}.get(cell_class, (0.8, 1.25))

    cell = (
        (fill * (1 - nucleus))[..., None]
        * mix(CYTOPLASM[cell_class], rng.uniform())
        * rng.uniform(0.7, 1.3)
    )
    if cell_class in GRANULE:
        stain, across = GRANULE[cell_class]
        grains = (
            granules(rng, u, v, across, rng.uniform(0.75, 0.95), edge)
            * step(0.97 - away, edge)
            * (1 - 0.85 * nucleus)
        )
        cell += grains[..., None] * stain * rng.uniform(0.65, 1.25)
    cell += chromatin[..., None] * nucleus_stain * rng.uniform(*depth)
    part = density[rows, columns]
    part *= 1 - 0.9 * body[inside][..., None]
    part += cell[inside]


def granules(
    rng: np.random.Generator, u: Floats, v: Floats, across: int, share: float, edge: float
) -> Floats:
    """Round grains, `across` of them over the cell's diameter, in `share` of the places of a
    jittered grid: values 0 to 1.
    """
    places = 2 * across
    size = np.where(
        rng.uniform(size=(places, places)) < share, rng.uniform(0.3, 0.52, (places, places)), 0
    ).astype(np.float32)
    shift = rng.uniform(-0.25, 0.25, (2, places, places)).astype(np.float32)
    # So that the eye does not see the grid
    bend = 0.05 * noise(rng, 5, len(u)), 0.05 * noise(rng, 5, len(u))
    row, column = (v + 2 + bend[0]) * across / 2, (u + 2 + bend[1]) * across / 2
    i, j = np.clip(row.astype(int), 0, places - 1), np.clip(column.astype(int), 0, places - 1)
    away = np.hypot(row - i - 0.5 - shift[0][i, j], column - j - 0.5 - shift[1][i, j])
    grains: Floats = step(size[i, j] - away, max(0.35, edge * across / 2)) * (size[i, j] > 0)
    return grains


def draw_lobes(rng: np.random.Generator, cell_class: str) -> NDArray[np.float64]:
    """Lobes of a nucleus: float array (lobes, 3) of x, y and radius, in radii of the cell; thin
    bridges are small lobes.
    """
    # One dense round nucleus that leaves a narrow rim, at times indented
    if cell_class == "LYMPHOCYTE":
        size, off = rng.uniform(0.74, 0.92), rng.uniform(0, 0.14)
        return np.array([[off, 0, size], [off + 0.1, rng.uniform(-0.2, 0.2), 0.7 * size]])
    if cell_class == "MONOCYTE":  # kidney or horseshoe
        bend, size = rng.uniform(1.6, 3.7), rng.uniform(0.36, 0.46)
        angles, arm = np.linspace(-bend / 2, bend / 2, 5), rng.uniform(0.33, 0.45)
        sizes = size * rng.uniform(0.85, 1.15, 5)
        return np.stack([arm * np.cos(angles) - 0.12, 1.15 * arm * np.sin(angles), sizes], 1)
    if cell_class == "EOSINOPHIL":  # two lobes like spectacles, seldom three
        count, bend = rng.choice([2, 3], p=[0.87, 0.13]), rng.uniform(1.9, 2.9)
        smallest, largest = 0.35, 0.45
    else:  # neutrophil: three to five small lobes in a chain, seldom two
        count = rng.choice([2, 3, 4, 5], p=[0.07, 0.38, 0.37, 0.18])
        bend = rng.uniform(2.8, 5.0)
        smallest, largest = 0.25, 0.34
    arm = rng.uniform(0.4, 0.5)
    angles = np.linspace(-bend / 2, bend / 2, count) + rng.uniform(-0.18, 0.18, count)
    arms = arm * rng.uniform(0.75, 1.2, count)
    lobes = np.stack(
        [
            arms * np.cos(angles) - 0.08,
            arms * np.sin(angles),
            rng.uniform(smallest, largest, count),
        ],
        1,
    )
    bridges = (lobes[:-1] + lobes[1:]) / 2
    bridges[:, 2] *= rng.uniform(0.3, 0.62)
    return np.concatenate([lobes, bridges])


def lobed(lobes: NDArray[np.float64], u: Floats, v: Floats) -> Floats:
    """Signed distance, in radii of the cell and positive inside, to the rounded union of
    `lobes`.
    """
    sharp, total = 4.0, np.zeros_like(u)
    for x, y, size in lobes.astype(np.float32):
        total += np.exp(sharp * (1 - ((u - x) ** 2 + (v - y) ** 2) / (size * size)))
    distance: Floats = np.log(total + 1e-6) / sharp * lobes[:, 2].mean() / 2
    return distance
