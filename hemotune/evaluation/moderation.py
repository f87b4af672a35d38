"""Variances of several rows, each judged in the light of the others."""

import numpy as np

from hemotune.evaluation.statistics import Floats

LEAST = 1e-5  # of the median variance: the least variance whose logarithm is taken
CONFIDENCE = 0.95  # that the variances of rows differ no more than is assumed


def moderated(variances: Floats, freedoms: Floats) -> list[tuple[float, float]]:
    """Return for each row a variance that is not too small, and its degrees of freedom.

    Variances of rows may differ by a factor of 100, which speaks against pooling; the three repeats
    of one row alone decide nothing. Empirical Bayes lies between (Smyth 2004, section 6.2): the
    variances are samples from a scaled inverse chi-squared prior, whose degrees of freedom follow
    from the variance of their logarithms and add to those of each row. Smyth has thousands of
    genes, a study has seven rows, and one of them may be the exception: drawn to the prior as he
    does, 15 % of simulated studies had a finding where nothing differs but one row varies five
    times as much as the others. So this errs on the safe side: the prior has the fewest degrees of
    freedom that a confidence bound allows, and a row's variance is its own or the mean of all rows,
    whichever is greater.

    Two rows never have more degrees of freedom together than all rows.

    Args:
        variances, freedoms: (rows,); a variance without degrees of freedom counts as unknown.
    """
    from scipy.special import digamma, polygamma
    from scipy.stats import chi2

    known = freedoms > 0
    values, halves, total = variances[known], freedoms[known] / 2, float(freedoms.sum())
    pooled = float(np.average(values, weights=halves))
    if pooled == 0:
        return [(0.0, total / 2)] * len(variances)
    logarithms = np.log(np.maximum(values, LEAST * np.median(values[values > 0])))
    scaled = logarithms - digamma(halves) + np.log(halves)
    prior_freedom = LEAST  # one row knows nothing of the others
    if others := len(values) - 1:
        largest = scaled.var(ddof=1) * others / chi2.ppf(1 - CONFIDENCE, others)
        excess = float(largest - polygamma(1, halves).mean())
        prior_freedom = min(2 * inverse_trigamma(excess) if excess > 1 / total else total, total)
    return [
        (max(float(variance), pooled), min(prior_freedom + own, max(own, total / 2)))
        for variance, own in zip(variances, freedoms.tolist(), strict=True)
    ]


def inverse_trigamma(value: float) -> float:
    """Return x > 0 with trigamma(x) = `value` > 0."""
    from scipy.optimize import brentq
    from scipy.special import polygamma

    # 1 / x < trigamma(x) < 1 / x + 1 / x^2
    lowest, highest = 1 / value, (1 + np.sqrt(1 + 4 * value)) / (2 * value)
    return float(brentq(lambda x: float(polygamma(1, x)) - value, lowest, highest))
