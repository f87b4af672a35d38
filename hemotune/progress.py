"""Progress of long work, and the number of cores that it may use."""

import os
import sys
import time
from typing import TextIO


def cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Progress:
    """Prints the progress of work on `total` units.

    A line looks like `[ 37%] decode 4631/12515, 890 images/s, 0:09 left`; flows/ reads the leading
    `[ 37%]`. A terminal shows one line that is rewritten. Elsewhere a line is printed for every
    five per cent or ten seconds of progress, at most one in 0.2 s: the log stays short, and the
    watch page still sees it move.
    """

    def __init__(self, label: str, total: int, unit: str, stream: TextIO | None = None) -> None:
        self.label, self.total, self.unit = label, max(total, 1), unit
        self.stream = stream or sys.stdout
        self.live = self.stream.isatty()
        self.resumed_at, self.started = 0, time.monotonic()
        self.shown_at, self.shown_share = float("-inf"), -1.0

    def resume_at(self, done: int) -> None:
        """Start at `done` units that an earlier process finished; the rate ignores them."""
        self.resumed_at, self.started = done, time.monotonic()

    def update(self, done: int, note: str = "") -> None:
        """Show that `done` of `total` units are finished, followed by `note`."""
        now, share = time.monotonic(), done / self.total
        since = now - self.shown_at
        due = since >= 0.2 and (self.live or share - self.shown_share >= 0.05 or since >= 10)
        if not due and done < self.total:
            return
        self.shown_at, self.shown_share = now, share
        elapsed = now - self.started
        rate = (done - self.resumed_at) / elapsed if elapsed > 0 else 0.0
        line = f"[{share:4.0%}] {self.label} {done}/{self.total}, {rate:.0f} {self.unit}/s"
        if rate > 0 and done < self.total:
            line += f", {format_duration((self.total - done) / rate)} left"
        if note:
            line += f", {note}"
        if self.live:
            self.stream.write(f"\r{line}\x1b[K" + ("\n" if done >= self.total else ""))
        else:
            self.stream.write(line + "\n")
        self.stream.flush()


def format_duration(seconds: float) -> str:
    """Return seconds as h:mm:ss, or m:ss below an hour."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
