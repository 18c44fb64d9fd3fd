"""`meshwalk demo`: real node processes join through one, talk, get killed, and mend, on one screen.

Every statement is checked, and the exit status is 0 only if all of them held.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from random import SystemRandom

import msgspec
from rich.console import Console
from rich.live import Live

from meshwalk.cli.demo_run import Performance, Summary
from meshwalk.cli.demo_view import HEIGHT_MIN, WIDTH_MIN, Scene, screen, summary
from meshwalk.errors import InvalidArgument
from meshwalk.net.loop import run

NODES_MIN, NODES_MAX = 2, 100  # a network; and what two cores and 2 GiB run without a pause
KILL_PERCENT_MAX = 90  # guess: beyond it there is hardly a network left to mend
FRAMES_PER_S = 12  # smooth enough to look at; measured: 5 ms each, 6 % of one core
SEEDS = 1 << 32  # short enough to type

INTERRUPTED = 130  # what shells report for Ctrl-C


def demo(nodes: int, kill_percent: int, as_json: bool, seed: int | None) -> int:
    """Run the demonstration on this terminal; returns the exit status: 0 if all claims held.

    `seed` repeats a run's choices: who broadcasts and who is killed. Raises `InvalidArgument`.
    """
    if not NODES_MIN <= nodes <= NODES_MAX:
        raise InvalidArgument(f"the demo runs {NODES_MIN} to {NODES_MAX} nodes, not {nodes}")
    if not 0 <= kill_percent <= KILL_PERCENT_MAX:
        raise InvalidArgument(f"0 to {KILL_PERCENT_MAX} percent can be killed, not {kill_percent}")
    seed = SystemRandom().randrange(SEEDS) if seed is None else seed
    console = Console()
    try:
        result = run(_show(Performance(nodes, kill_percent, seed), console, as_json))
    except KeyboardInterrupt:
        console.print("stopped; all nodes have ended")
        return INTERRUPTED
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(result), indent=2).decode())
    else:
        _print_result(console, result)
    return 0 if result.ok else 1


def _print_result(console: Console, result: Summary) -> None:
    console.print(summary(result.claims, console.width))
    for complaint in result.complaints:
        console.print(complaint, markup=False, highlight=False)
    verdict = "everything held" if result.ok else "NOT everything held"
    console.print(
        f"{verdict}, in {result.seconds:.1f} s; --seed {result.seed} makes the same choices",
        highlight=False,
    )


async def _show(performance: Performance, console: Console, as_json: bool) -> Summary:
    if as_json:
        return await performance.run()
    has_room = console.width >= WIDTH_MIN and console.height >= HEIGHT_MIN
    if console.is_terminal and not console.options.ascii_only and has_room:
        return await show_live(performance, console)
    performance.on_news = lambda line: console.print(line, markup=False, highlight=False)
    return await performance.run()


async def show_live(
    performance: Performance,
    console: Console,
    on_frame: Callable[[Scene], None] = lambda scene: None,
) -> Summary:
    """Draw the performance while it runs, at a pace for people."""
    performance.pace = 1.0
    with Live(console=console, auto_refresh=False) as live:

        def draw() -> None:
            scene = performance.scene()
            live.update(screen(scene, console.width, console.height), refresh=True)
            on_frame(scene)

        async def keep_drawing() -> None:
            while True:
                draw()
                await asyncio.sleep(1 / FRAMES_PER_S)

        drawing = asyncio.create_task(keep_drawing())
        try:
            return await performance.run()
        finally:
            drawing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await drawing
            draw()
