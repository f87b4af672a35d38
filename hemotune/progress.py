"""Long work: on how many cores it runs at once, and how far it is."""

import os
import sys
import time


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Progress:
    """Tell how far some work of `total` units is: `[ 37%] decode 4631/12515, 890 images/s, 0:09
    left`.

    In a terminal one line is rewritten. In a pipe a line is printed when the share has grown by
    five per cent or ten seconds have passed, and never sooner than 0.2 s after the last one: a log
    stays short, and a watcher still sees it move. The leading `[ 37%]` is what flows/ reads.
    """

    def __init__(self, what, total, unit, stream=None):
        self.what, self.total, self.unit = what, max(total, 1), unit
        self.stream = stream or sys.stdout
        self.live = self.stream.isatty()
        self.began_at, self.started = 0, time.monotonic()
        self.shown_at, self.shown_share = float("-inf"), -1.0

    def begin_at(self, done):
        """Say that `done` units were finished before: they do not count for the rate."""
        self.began_at, self.started = done, time.monotonic()

    def update(self, done, note=""):
        """Say that `done` of `total` units are finished; `note` is appended."""
        now, share = time.monotonic(), done / self.total
        since = now - self.shown_at
        due = since >= 0.2 and (self.live or share - self.shown_share >= 0.05 or since >= 10)
        if not due and done < self.total:
            return
        self.shown_at, self.shown_share = now, share
        elapsed = now - self.started
        rate = (done - self.began_at) / elapsed if elapsed > 0 else 0.0
        left = (
            f", {clock((self.total - done) / rate)} left" if rate > 0 and done < self.total else ""
        )
        line = (
            f"[{share:4.0%}] {self.what} {done}/{self.total}, {rate:.0f}"
            f" {self.unit}/s{left}{', ' + note if note else ''}"
        )
        if self.live:
            self.stream.write(f"\r{line}\x1b[K" + ("\n" if done >= self.total else ""))
        else:
            self.stream.write(line + "\n")
        self.stream.flush()


def clock(seconds):
    """Return seconds as h:mm:ss, or m:ss below an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
