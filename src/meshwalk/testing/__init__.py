"""Tests of whole applications: nodes and your own asyncio code in one process, in virtual time.

    from meshwalk.testing import World, simulated

    @simulated(seed=7)
    async def test_everyone_hears(world: World) -> None:
        anna = await world.start("anna")
        bert = await world.start("bert", join=anna)
        heard = anna.messages()
        await bert.broadcast("hello")
        assert (await anext(heard)).body == "hello"

An hour takes seconds, machines and the network can fail, and one seed decides everything. The tour
is in docs/testing.md.
"""

from meshwalk.testing.loop import Deadlock, LimitReached, NotSimulated
from meshwalk.testing.run import simulate, simulated
from meshwalk.testing.world import Place, World

__all__ = [
    "Deadlock",
    "LimitReached",
    "NotSimulated",
    "Place",
    "World",
    "simulate",
    "simulated",
]
