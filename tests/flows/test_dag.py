"""What a run is called, and its tags."""

from flows.dag import Dag, Meta, Stage


def stage(name, *upstream, changed=()):
    return Stage(name, list(upstream), list(changed), forced=False, meta=Meta())


STAGES = [
    stage("fetch"),
    stage("other"),
    stage("fit", "fetch", changed=["params.yaml: seed: modified"]),
    stage("tell", "fit"),
]


def test_a_run_is_named_and_tagged_by_profile_and_revision():
    dag = Dag(STAGES, locked=[], remote=None, profile="sample", revision="1a2b3c4-dirty")
    assert dag.title() == "sample: 2 of 4 stages"
    assert dag.title(force=["fetch"]) == "sample: 3 of 4 stages"
    assert dag.tags() == ["profile:sample", "revision:1a2b3c4-dirty"]


def test_without_a_profile_or_revision_a_run_is_a_study_without_tags():
    dag = Dag(STAGES, locked=[], remote=None)
    assert (dag.title(), dag.tags()) == ("study: 2 of 4 stages", [])
