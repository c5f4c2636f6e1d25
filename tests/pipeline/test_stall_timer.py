"""The stall timer, on a loop whose time a test sets."""

from __future__ import annotations

import asyncio

from gateway.pipeline.request_body import StallTimer


class ManualLoop(asyncio.SelectorEventLoop):
    """A loop whose time a test sets, in seconds."""

    now = 0.0

    def time(self) -> float:
        """Return the loop's time."""
        return self.now

    async def advance_to(self, now: float) -> None:
        """Set the time, and call what is due."""
        self.now = now
        for _ in range(3):
            await asyncio.sleep(0)


def stalled_at(*waits: tuple[float, float]) -> list[float]:
    """Return when a timer of ten seconds fires; each wait lasts from one time to another."""
    with asyncio.Runner(loop_factory=ManualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, ManualLoop)
        ended: list[float] = []

        async def wait() -> None:
            timer = StallTimer(10, lambda: ended.append(loop.now))
            for begin, end in waits:
                await loop.advance_to(begin)
                timer.start()
                while loop.now < end:
                    await loop.advance_to(loop.now + 1)
                timer.stop()
            await loop.advance_to(loop.now + 100)
            timer.cancel()
            await loop.advance_to(loop.now + 100)

        runner.run(wait())
    return ended


def test_short_waits_do_not_add_up() -> None:
    assert stalled_at((0, 6), (7, 13), (14, 20), (50, 59)) == []


def test_a_long_wait_ends_after_the_limit() -> None:
    """Also one that follows short ones, measured from its own start; once."""
    assert stalled_at((0, 30)) == [10]
    assert stalled_at((0, 6), (7, 40)) == [17]
    assert stalled_at((0, 6), (31, 60)) == [41]


def test_a_cancelled_wait_does_not_fire() -> None:
    async def forget() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ManualLoop)
        ended: list[bool] = []
        timer = StallTimer(10, lambda: ended.append(True))
        timer.start()
        timer.cancel()
        await loop.advance_to(100)
        assert ended == []

    with asyncio.Runner(loop_factory=ManualLoop) as runner:
        runner.run(forget())
