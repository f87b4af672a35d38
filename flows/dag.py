"""The DAG of dvc.yaml as the flow sees it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Meta:
    """What a stage's `meta` in dvc.yaml may hold; each key is optional, and others are ignored."""

    gpu: bool = False  # the stage takes a slot
    # How often it is retried after a failure that may pass by itself: whose exit status is not 1.
    retries: int = 0
    # A command that runs before any stage where one has changed. If it fails, nothing runs.
    check: str | None = None
    # A command that runs instead of the stage's own if some of its upstream stages have failed.
    incomplete: str | None = None
    # A command that prints the state of the source that the stage fetches data from, and the output
    # that holds this state as of the last fetch: see flows/source.py.
    source: str | None = None
    state: str | None = None
    artifacts: Mapping[str, str] | None = None  # titles and files to show on the task's page
    summary: str | None = None  # a file to print at the end of a study

    @classmethod
    def parse(cls, meta: dict[str, Any] | None) -> "Meta":  # Any: as YAML gives it
        known = {key.name for key in fields(cls)}
        return cls(**{key: value for key, value in (meta or {}).items() if key in known})


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml; one of a matrix is called `NAME@KEY`."""

    name: str
    upstream: list[str]  # names of the stages that it depends on directly
    changed: list[str]  # reasons why it must run; empty if it is up to date
    forced: bool  # it must run although DVC sees no change: its source has changed
    meta: Meta

    @property
    def key(self) -> str:
        """Return KEY of `NAME@KEY`, or the whole name."""
        return self.name.rpartition("@")[2]


@dataclass(frozen=True)
class Dag:
    stages: list[Stage]  # in the order in which `dvc repro` runs them
    locked: list[str]  # names of the stages in dvc.lock, in its order
    remote: str | None  # DVC's default remote, if it has one
    profile: str | None = None  # of params.yaml
    revision: str | None = None  # of git, such as `1a2b3c4` or `1a2b3c4-dirty`

    def title(self, force: Sequence[str] = ()) -> str:
        """Return what a run is called that does what is to be done, such as `sample: 3 of 14
        stages`.

        It counts the stages that have changed or are in `force`, and all that follow them: these
        are not run if the files that they read come out the same.
        """
        touched: set[str] = set()
        for stage in self.stages:  # each comes after those that it depends on
            if stage.changed or stage.name in force or touched.intersection(stage.upstream):
                touched.add(stage.name)
        return f"{self.profile or 'study'}: {len(touched)} of {len(self.stages)} stages"

    def tags(self) -> list[str]:
        """Return the tags of a run: which profile it is of, and which revision of the code."""
        named = {"profile": self.profile, "revision": self.revision}
        return [f"{name}:{value}" for name, value in named.items() if value]

    def lock_order(self) -> list[str]:
        """Return the names of all stages in the order in which dvc.lock should list them."""
        new = [stage.name for stage in self.stages if stage.name not in self.locked]
        return self.locked + new
