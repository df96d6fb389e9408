"""Interface of the code that runs tasks: `wm run` uses `local.py`, the pipeline of `wm submit` uses `submission.py`."""

from typing import Protocol, TypeVar

from ..planning import TaskState

Work = TypeVar("Work")
Report_contra = TypeVar("Report_contra", contravariant=True)


class Executor(Protocol[Work, Report_contra]):
    """Runs tasks somewhere, each up to its committed artifact; `planning.execute` calls it, task by task.

    `Work` is what `submit` hands to `wait`. `Report` is a function that receives the progress, in a form that the
    executor chooses. Workers execute `python -m worldmodels.executors.worker`, which reads `WM_TASK`, `WM_STORE`,
    `WM_WORKERS` and `JOB_COMPLETION_INDEX` from the environment. They meet in the store only. The executor of a batch
    system, with one worker per task:

        class Batch:
            def submit(self, state: TaskState) -> str:
                name = state.identity.work
                if not self.system.knows(name):
                    self.system.start(name, [sys.executable, "-m", "worldmodels.executors.worker"],
                                      {"WM_TASK": state.task.to_json(), "WM_STORE": state.store.uri})
                return name

            def wait(self, work: str, report: Callable[[float], None]) -> None:
                while (share := self.system.done(work)) < 1:  # raises WorkFailed for a failed one
                    report(share)
                    time.sleep(3)

    Jobs can outlive a command, so `wm attach`, `cancel`, `scale` and `logs` handle Jobs only: the processes of `wm run`
    end with it. docs/extending.md has an executor that a test runs.
    """

    def submit(self, state: TaskState) -> Work:
        """Let the task's work begin, unless it is under way already: another call must not begin it twice."""

    def wait(self, work: Work, report: Report_contra) -> None:
        """Return once the task's artifact is committed; raise the WmError that explains why it cannot be."""
