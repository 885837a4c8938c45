"""Runs `await` at top level: one event loop for the session, made at the first need."""

import asyncio


def run(coroutine):
    """The value of the coroutine. An interrupt cancels it, so that it does not go on in the next execution."""
    loop = worker.event_loop
    if loop is None or loop.is_closed():
        loop = worker.event_loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
    task = loop.create_task(coroutine)
    try:
        return loop.run_until_complete(task)
    except BaseException:
        if not task.done():
            task.cancel()
            loop.run_until_complete(asyncio.wait([task]))
        raise
