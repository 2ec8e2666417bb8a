"""How far a long run is: a line on stderr that appears after a second, where stderr is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import Lock, Timer
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress

DELAY_S = 1.0


class ProgressLine:
    """Context of one or several runs. Nothing is shown of those that are over within `DELAY_S`."""

    def __init__(self, runs: int, stream: TextIO | None = None) -> None:
        self._runs = runs
        self._stream = stream or sys.stderr
        self._lock = Lock()
        self._state = ("", 0, 1)
        self._shown: Progress | None = None
        self._timer = Timer(DELAY_S, self._show)
        self._timer.daemon = True

    def __enter__(self) -> ProgressLine:
        if self._stream.isatty():
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            if self._shown is not None:
                self._shown.stop()

    def callback(self, run: int, name: str) -> Callable[[str, int, int], None]:
        """What `simulator.study.run_workload` calls while run number ``run``, called ``name``, goes on."""

        def update(operation: str, done: int, count: int) -> None:
            label = f"{name}: {operation}" if self._runs > 1 else operation
            self._state = (label, run * count + done, self._runs * count)
            shown = self._shown
            if shown is not None:
                shown.update(shown.task_ids[0], description=label, completed=self._state[1])

        return update

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TimeElapsedColumn(),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
        )
        with self._lock:
            if self._timer.finished.is_set():
                return
            shown = Progress(*columns, console=Console(file=self._stream), transient=True)
            label, done, count = self._state
            shown.add_task(label, completed=done, total=count)
            shown.start()
            self._shown = shown
