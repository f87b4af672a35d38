"""The end of runs on which no process works."""

import uuid
from types import SimpleNamespace

from prefect.states import Completed, Crashed, Running

from flows import runs


class Client:
    """Answers as Prefect's client does: a page of at most 200 of the task runs that match."""

    def __init__(self, states):
        self.tasks = [
            SimpleNamespace(id=number, state=state) for number, state in enumerate(states)
        ]

    def read_task_runs(self, flow_run_filter, task_run_filter):
        types = task_run_filter.state.type.any_
        return [task for task in self.tasks if task.state.type in types][:200]

    def set_task_run_state(self, task, state, force):
        assert force
        self.tasks[task].state = state


def test_all_tasks_of_a_dead_run_end_and_those_that_had_ended_stay():
    client = Client([Running(), Completed(message="earlier")] * 250)
    dead = Crashed(message="no process works on this run")
    runs.end_tasks(client, SimpleNamespace(id=uuid.uuid4()), dead)
    assert {task.state.message for task in client.tasks[::2]} == {dead.message}
    assert {task.state.message for task in client.tasks[1::2]} == {"earlier"}
