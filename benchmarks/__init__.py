"""Speed and size, each as a ratio of two commands in one run. `make bench` runs them all."""


def print_row(what: str, value: float, goal: float, how: str) -> None:
    """Print one figure as a row of the table that `make bench` ends with.

    Args:
        what: what is compared with what, and on which input.
        value: the ratio; goal: what it may be at most.
        how: the two measured values, with units.
    """
    print(f"| {what} | {value:.3g} | {goal} | {how} |", flush=True)
