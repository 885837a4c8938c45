"""Runs `await` at top level: one event loop for the session, made at the first need."""

import asyncio


def run(coroutine):
    """The value of the coroutine. An interrupt cancels it, so that it does not go on in the next execution."""
    try:
        loop = _event_loop()
        task = loop.create_task(coroutine)
    except BaseException:
        coroutine.close()  # or Python would complain later that nobody awaited it
        raise
    try:
        return loop.run_until_complete(task)
    except BaseException:
        if not task.done():
            task.cancel()
            loop.run_until_complete(asyncio.wait([task]))
        raise


def _event_loop():
    if worker.event_loop is None or worker.event_loop.is_closed():
        worker.event_loop = asyncio.new_event_loop()
        asyncio.set_event_loop(worker.event_loop)
    return worker.event_loop
