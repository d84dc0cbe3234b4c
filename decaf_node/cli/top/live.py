"""The daemon's news on the screen: they are heard in a thread, and drawn here."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

from rich.console import Console

from decaf_node.cli.top.feed import Feed, News
from decaf_node.cli.top.screen import screen
from decaf_node.cli.top.sight import Sight
from decaf_node.cli.top.window import Window
from decaf_node.daemon.client import Client
from decaf_node.errors import DecafError

JOIN_SECONDS = 0.5  # a connection that is being opened may take longer, and need not be waited for


def show(console: Console, connect: Callable[[], Client]) -> int:
    """Show the daemon until the user leaves; return the exit code. Raises what ``Feed`` does."""
    feed, sight = Feed(connect), Sight()
    news = feed.news()
    while sight.status is None:
        sight.take(next(news))
    return asyncio.run(_live(console, feed, news, sight))


async def _live(console: Console, feed: Feed, news: Iterator[News], sight: Sight) -> int:
    loop = asyncio.get_running_loop()
    window = Window(console, lambda console: screen(sight, console))
    refused: list[DecafError] = []

    async def take(piece: News) -> None:
        sight.take(piece)
        window.wake()

    def refuse(error: DecafError) -> None:
        refused.append(error)
        window.stop(error.exit_code)

    def hear() -> None:
        try:
            for piece in news:
                asyncio.run_coroutine_threadsafe(take(piece), loop).result()  # no faster than it can be drawn
        except DecafError as error:
            loop.call_soon_threadsafe(refuse, error)

    thread = threading.Thread(target=hear, name="news", daemon=True)
    thread.start()
    code = await window.run()
    feed.close()
    await asyncio.to_thread(thread.join, JOIN_SECONDS)
    if refused:
        raise refused[0]
    return code
