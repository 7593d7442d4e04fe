"""Token streaming for many predictions at once, on a Cog whose async generators do not stream.

coglet 0.23 collects what an async generator yields into a list before it sends anything. It streams a plain generator,
but runs one prediction at a time. A plain generator object that a coroutine returns streams in every slot at once:
coglet iterates it on the slot's own thread. So `relayed` makes a coroutine of the method that returns one:

    event loop                                       slot's thread
    a Response, written piece by piece ──> queue ──> a plain generator ──> coglet ──> the client

`tests/integration/test_coglet.py` fails when Cog streams async generators by itself. Then this file can go, and
predict() can read the Response, which is an async iterable.
"""

import asyncio
import functools
import inspect
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from hermes.serving.response import Response

Method = Callable[..., Awaitable[Response]]


@dataclass(frozen=True)
class End:
    """The last thing in a queue: how the task that filled it ended."""

    error: BaseException | None


Pieces = SimpleQueue[str | End]


def relayed(predict: Method) -> Callable[..., Coroutine[Any, Any, Iterator[str]]]:
    """Make a method that returns a Response stream on coglet, with its defaults, errors and cancellation.

    It stands right above the method, below Cog's own decorators.
    """
    defaults = input_defaults(predict)

    @functools.wraps(predict)
    async def start(self: Any, **inputs: Any) -> Iterator[str]:
        future = coglet_future()
        pieces: Pieces = SimpleQueue()
        response = await predict(self, **{**defaults, **inputs})
        task = asyncio.ensure_future(response.write_to(pieces.put))
        task.add_done_callback(lambda done: pieces.put(End(_how_it_ended(done))))

        loop = asyncio.get_running_loop()

        def cancel() -> bool:
            if not loop.is_closed():
                loop.call_soon_threadsafe(task.cancel)
            return True

        future.cancel = cancel  # type: ignore[method-assign]
        stream = drain(pieces, cancel)
        weakref.finalize(stream, cancel).atexit = False  # a generator that was never started runs no `finally`
        return stream

    return start


def input_defaults(predict: Method) -> dict[str, Any]:
    """The default of every input. coglet fills defaults in only for the method that it sees, which is the wrapper."""
    parameters = inspect.signature(predict).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}
    return {name: getattr(default, "default", default) for name, default in defaults.items()}


def drain(pieces: Pieces, cancel: Callable[[], object]) -> Iterator[str]:
    """Yield the pieces as they come, and raise what the task raised. Pieces that queued up meanwhile are joined.

    Closing the generator calls `cancel`.
    """
    error = None
    try:
        while True:
            ready, end = _all_ready(pieces)
            if ready:
                yield "".join(ready)
            if end:
                error, end = end.error, None
                if error:
                    raise error
                return
    finally:
        cancel()
        # The error's traceback leads to this frame and to the inputs. If this frame led back to the error, all of that,
        # which may be megabytes, would stay until the garbage collector looks at what is old.
        del cancel, error


def _all_ready(pieces: Pieces) -> tuple[list[str], End | None]:
    """Wait for one thing in the queue, then take everything that is there."""
    ready: list[str] = []
    thing = pieces.get()
    while isinstance(thing, str):
        ready.append(thing)
        if pieces.empty():
            return ready, None
        thing = pieces.get_nowait()
    return ready, thing


def coglet_future() -> "Future[Any]":
    """The future through which coglet waits for, and cancels, the running prediction.

    coglet made it with asyncio.run_coroutine_threadsafe. It calls its cancel() when the prediction is cancelled or the
    client is gone, but by then the coroutine has returned. A done callback of the current task holds the future as
    `destination`: see asyncio.futures._chain_future, which is the same from Python 3.11 to 3.14.

    Raises RuntimeError if not called from such a coroutine, or asyncio has changed.
    """
    task = asyncio.current_task()
    for callback, _ in getattr(task, "_callbacks", None) or []:
        future = inspect.getclosurevars(callback).nonlocals.get("destination") if inspect.isfunction(callback) else None
        if isinstance(future, Future):
            return future
    raise RuntimeError("relayed: the future of this prediction was not found; has asyncio or coglet changed?")


def _how_it_ended(task: "asyncio.Task[None]") -> BaseException | None:
    return asyncio.CancelledError() if task.cancelled() else task.exception()
