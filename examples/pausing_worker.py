"""A job worker, as Celery or RQ have them, that pauses while the service is under maintenance.

    FASTAPI_MAINTENANCE_BACKEND=file:/tmp/maintenance python -m examples.pausing_worker

A job that has begun is finished. The worker never polls the store: the hook tells it when it may go on.
"""

import queue
import threading

from fastapi_maintenance import MaintenanceMode, Transition, is_maintenance_on, on_change


class PausingWorker:
    """Runs jobs one after the other, and none while maintenance is on."""

    def __init__(self) -> None:
        self.jobs: queue.Queue[str | None] = queue.Queue()
        self.done: list[str] = []
        self._may_run = threading.Event()
        self._subscription = on_change(self._pause_or_go_on)
        # Asked after the hook is there: a change in between is told.
        if not is_maintenance_on():
            self._may_run.set()

    def _pause_or_go_on(self, transition: Transition) -> None:
        if transition.after is MaintenanceMode.OFF:
            self._may_run.set()
        else:
            self._may_run.clear()

    def run(self) -> None:
        """Run jobs until a ``None`` comes."""
        while (job := self.jobs.get()) is not None:
            self._may_run.wait()
            self.done.append(job)
        self._subscription.cancel()


if __name__ == "__main__":
    worker = PausingWorker()
    for number in range(3):
        worker.jobs.put(f"job {number}")
    worker.jobs.put(None)
    worker.run()
    print(worker.done)
