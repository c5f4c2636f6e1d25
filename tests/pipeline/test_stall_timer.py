"""Waits that are short one by one, on a loop whose time a test sets."""

from __future__ import annotations

import asyncio

from gateway.pipeline.request_body import StallTimer


class SetLoop(asyncio.SelectorEventLoop):
    """A loop at the time that it is told, in seconds."""

    now = 0.0

    def time(self) -> float:
        """The loop's clock."""
        return self.now

    async def pass_to(self, now: float) -> None:
        """Let it be so late, and what is due happen."""
        self.now = now
        for _ in range(3):
            await asyncio.sleep(0)


def given_up_at(*waits: tuple[float, float]) -> list[float]:
    """When a timer of ten seconds ends; each wait lasts from one time to another."""
    with asyncio.Runner(loop_factory=SetLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, SetLoop)
        ended: list[float] = []

        async def wait() -> None:
            timer = StallTimer(10, lambda: ended.append(loop.now))
            for begin, end in waits:
                await loop.pass_to(begin)
                timer.start()
                while loop.now < end:
                    await loop.pass_to(loop.now + 1)
                timer.stop()
            await loop.pass_to(loop.now + 100)
            timer.cancel()
            await loop.pass_to(loop.now + 100)

        runner.run(wait())
    return ended


def test_each_wait_counts_by_itself() -> None:
    """Many waits that are short enough are no long one, and time between them is none."""
    assert given_up_at((0, 6), (7, 13), (14, 20), (50, 59)) == []


def test_a_long_wait_ends_after_the_limit() -> None:
    """Also the one that follows short ones, counted from its own beginning; once."""
    assert given_up_at((0, 30)) == [10]
    assert given_up_at((0, 6), (7, 40)) == [17]
    assert given_up_at((0, 6), (31, 60)) == [41]


def test_nothing_follows_what_is_forgotten() -> None:
    """A wait that is given up by its owner ends nothing."""

    async def forget() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SetLoop)
        ended: list[bool] = []
        timer = StallTimer(10, lambda: ended.append(True))
        timer.start()
        timer.cancel()
        await loop.pass_to(100)
        assert ended == []

    with asyncio.Runner(loop_factory=SetLoop) as runner:
        runner.run(forget())
