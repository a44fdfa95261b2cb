"""Virtual time: one heap of events for the whole world, and an asyncio event loop per simulated process on top of it.

No thread, no real clock. A process is stopped between any two steps by not running its loop any more (a crash) or not
running it for a while (SIGSTOP): tasks, timers and the work of its thread pools stand still with it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from asyncio import events
from collections import deque
from collections.abc import Callable
from typing import Any

Act = Callable[[], None]


class Scheduler:
    """What happens next, in order of virtual seconds; equal times in the order in which they were asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        self.running: ProcessLoop | None = None  # whose code runs at this moment
        self._heap: list[tuple[float, int, Act]] = []
        self._count = itertools.count()

    def after(self, delay: float, act: Act) -> None:
        heapq.heappush(self._heap, (self.now + delay, next(self._count), act))

    def step(self) -> bool:
        """The next event; False when there is none."""
        if not self._heap:
            return False
        self.now, _, act = heapq.heappop(self._heap)
        self.steps += 1
        act()
        return True

    def run_until(self, time: float) -> None:
        while self._heap and self._heap[0][0] <= time:
            self.step()
        self.now = max(self.now, time)

    def clear(self) -> None:
        self._heap.clear()


class ProcessLoop(asyncio.AbstractEventLoop):
    """The event loop of one simulated process.

    `thread_delays(executor)` gives how long a thread waits before it runs a function, and how long its result takes to
    come back. `on_error(context)` is told what asyncio would log.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        process: Any,
        thread_delays: Callable[[Any], tuple[float, float]],
        on_error: Callable[[dict[str, Any]], None],
    ) -> None:
        self.scheduler = scheduler
        self.process = process
        self.dead = False
        self.paused = False
        self._thread_delays = thread_delays
        self._on_error = on_error
        self._ready: deque[asyncio.Handle] = deque()
        self._stopped_threads: list[Act] = []
        self._turn_is_due = False
        self._tasks: list[
            asyncio.Task[Any]
        ] = []  # those of a dead process must not be collected while others run

    # -- what happens to the process -----------------------------------------------------------------------------

    def kill(self) -> None:
        """Nothing of it runs any more."""
        self.dead = True
        self._ready.clear()
        self._stopped_threads.clear()

    def pause(self) -> None:
        self.paused = True

    def wake(self) -> None:
        self.paused = False
        threads, self._stopped_threads = self._stopped_threads, []
        for work in threads:
            self.scheduler.after(0, work)
        self._take_turn()

    # -- asyncio's side ------------------------------------------------------------------------------------------

    def time(self) -> float:
        return self.scheduler.now

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self.dead:
            self._ready.append(handle)
            self._take_turn()
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        return self.call_at(self.scheduler.now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)

        def due() -> None:
            if not self.dead and not handle.cancelled():
                self._ready.append(handle)
                self._take_turn()

        self.scheduler.after(max(0.0, when - self.scheduler.now), due)
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> asyncio.Task[Any]:
        more = {} if context is None else {"context": context}
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, **more)
        self._tasks.append(task)
        return task

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """A function in a thread: it runs whole at one moment, some time after it was asked for."""
        future = self.create_future()
        before, after = self._thread_delays(executor)

        def finish(act: Callable[[Any], None], outcome: Any) -> None:
            if not self.dead and not future.cancelled():
                act(outcome)

        def work() -> None:
            if self.dead:
                return
            if self.paused:
                self._stopped_threads.append(work)
                return
            last, self.scheduler.running = self.scheduler.running, self
            try:
                outcome, act = func(*args), future.set_result
            except Exception as error:
                outcome, act = error, future.set_exception
            finally:
                self.scheduler.running = last
            self.scheduler.after(after, lambda: finish(act, outcome))

        self.scheduler.after(before, work)
        return future

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return self.dead

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.dead:
            self._on_error(context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def _take_turn(self) -> None:
        if not self._turn_is_due and not self.paused and self._ready:
            self._turn_is_due = True
            self.scheduler.after(0, self._turn)

    def _turn(self) -> None:
        self._turn_is_due = False
        if self.dead or self.paused:
            return
        last, self.scheduler.running = self.scheduler.running, self
        events._set_running_loop(self)
        try:
            for _ in range(len(self._ready)):
                if not self._ready:  # killed by itself
                    break
                handle = self._ready.popleft()
                if not handle.cancelled():
                    handle._run()
        finally:
            events._set_running_loop(None)
            self.scheduler.running = last
        self._take_turn()
