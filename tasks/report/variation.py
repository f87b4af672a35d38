"""Parts of section 5 of the report: what the accuracies rest on, where their variance comes from,
and the size of the leak.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from hemotune.evaluation.contrasts import (
    Components,
    Contrast,
    Term,
    components_of,
    components_over_cuts,
    contrast,
    tested_by_all,
)
from hemotune.evaluation.predictions import photographs_known
from hemotune.evaluation.trainings import Spread, Trainings, paired_rows, spreads_of
from hemotune.markup import escaped
from hemotune.settings.study import Words
from tasks.report.comparisons import (
    FEWEST,
    Comparison,
    answers_of,
    of_factor,
    trainings_of,
)
from tasks.report.markdown import Row, bold, format_difference, table
from tasks.report.results import Summary, by_series


def in_folds(finished: Iterable[Summary]) -> list[Summary]:
    """Return the rows that were tested in folds."""
    return [one for one in finished if one.finished[0].fold is not None]


def photographs_table(finished: Sequence[Summary], words: Words) -> str:
    """Return a table of the tested images and photographs of each class, by protocol, with the
    effective number: of photographs of one size that would decide as much.
    """
    counted, classes = {}, set()
    for summary in finished:
        if summary.protocol in counted or not photographs_known(summary.judged[0]):
            continue
        tested = pd.concat(summary.judged)
        tested = tested[~tested.index.duplicated()]
        sizes = tested["photograph"].value_counts().to_numpy()
        by_class = tested.groupby("truth")["photograph"].nunique()
        counted[summary.protocol] = (by_class, sizes)
        classes |= set(by_class.index)
    head = [
        "Protocol",
        *[escaped(str(name)) for name in sorted(classes)],
        f"All {words.plural}",
        "Effective number",
        "Images",
    ]
    rows = [
        [
            f"`{protocol}`",
            *[int(by_class.get(name, 0)) for name in sorted(classes)],
            len(sizes),
            round(sizes.sum() ** 2 / (sizes**2).sum()),
            f"{sizes.sum():,}",
        ]
        for protocol, (by_class, sizes) in counted.items()
    ]
    return table(head, rows) if rows else ""


def shares_table(finished: Iterable[Summary], words: Words) -> str:
    """Return a table of where the variance of an accuracy comes from, by series."""
    head = [
        "Series",
        words.plural.capitalize(),
        "Training",
        f"Training x {words.unit}",
        "Choice of the split",
        f"Standard deviation, points ({words.plural}; training)",
    ]
    rows: list[Row] = []
    unknown = "not separable"
    cuts: dict[str, list[list[Summary]]] = {}
    for group in by_series(finished).values():
        cuts.setdefault(group[0].over_cuts, []).append(group)
    for series, groups in cuts.items():
        found = components(groups)
        if found is None or found.total == 0:
            rows.append([bold(series), unknown, unknown, unknown, unknown, ""])
            continue
        parts = (found.photographs, found.training, found.crossed, found.split)
        deviations = [f"{100 * part**0.5:.2f}" for part in (found.photographs, found.training)]
        shares = [
            unknown if part is None else f"{100 * part / found.total:.0f} %" for part in parts
        ]
        rows.append([bold(series), *shares, "; ".join(deviations)])
    return table(head, rows)


def components(cuts: Sequence[Sequence[Summary]]) -> Components | None:
    """Return the variance components of the rows that have spreads in every cut of their images."""
    answers = [
        {
            experiment: (answer.trainings, answer.spread)
            for (_, experiment), answer in answers_of(group).items()
            if answer.spread
        }
        for group in cuts
    ]
    names = [name for name in answers[0] if all(name in of_cut for of_cut in answers)]
    if not names:
        return None
    parts = [
        ([of_cut[name][0] for name in names], [of_cut[name][1] for name in names])
        for of_cut in answers
    ]
    return components_of(*parts[0]) if len(parts) == 1 else components_over_cuts(parts)


def leak_table(finished: Sequence[Summary], words: Words) -> str:
    """Return a table of accuracy on `random` minus that out of fold, on the same images, for each
    row and on average; empty where one of the two is missing.
    """
    rows: list[Row] = []
    for backbone in dict.fromkeys(summary.backbone for summary in finished):
        of_backbone = [summary for summary in finished if summary.backbone == backbone]
        seen = {one.experiment: one for one in of_backbone if one.protocol == "random"}
        folds = {one.experiment: one for one in in_folds(of_backbone)}
        names = [name for name in seen if name in folds]
        if not names:
            continue
        pairs = leak_terms([seen[name] for name in names], [folds[name] for name in names])
        shown = [(bold(name), terms) for name, terms in zip(names, pairs, strict=True)]
        if len(names) > 1:
            terms = [
                term._replace(factor=term.factor / len(names)) for terms in pairs for term in terms
            ]
            shown.append(("mean of the rows", terms))
        rows += [
            [name, backbone, *leak_cells(contrast(terms))]
            for name, terms in shown
            if tested_by_all(terms).any()  # false where other folds of each are missing
        ]
    head = ["Model", "Backbone", "Leak (points) [95 %]", "p"]
    head += [words.plural.capitalize(), "Holds for"]
    return table(head, rows, left=2) if rows else ""


def leak_terms(seen: Sequence[Summary], folds: Sequence[Summary]) -> list[list[Term]]:
    """Return the two terms of the leak of each row."""
    sides = paired_rows([*map(trainings_of, seen)], [*map(trainings_of, folds)])
    terms = []
    for factor, rows in zip((1, -1), sides, strict=True):
        spreads = spreads_of(rows)
        enough = spreads and all(row.repeats.sum() >= FEWEST for row in rows)
        known = spreads if spreads and enough else [unknown_spread(row) for row in rows]
        terms.append([Term(factor, row, one) for row, one in zip(rows, known, strict=True)])
    return [list(pair) for pair in zip(*terms, strict=True)]


def unknown_spread(row: Trainings) -> Spread:
    """Return the spread of trained models: none, so that photographs alone count."""
    return Spread(0.0, np.inf, np.zeros(len(row.repeats)))


def leak_cells(found: Contrast) -> list[object]:
    change: Comparison = of_factor(found)
    trained = any(np.isinf(part.freedom) for part in found.trainings)
    return [
        format_difference(change),
        f"{change.p:.3g}",
        f"{found.number:,}",
        "these trained models" if trained else "trainings like these",
    ]
