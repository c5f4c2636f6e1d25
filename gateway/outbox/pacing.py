"""How long to wait before the next attempt: of one entry, and of all while the line is down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.timing import backoff

# Seconds until a platform that may have a write surely finds it: its search lags behind.
INDEX_LAG: Final = 10.0


@dataclass(frozen=True, slots=True)
class RetryDelays:
    """In seconds. Each pause is twice the one before it, from `first` to the longest.

    `longest` is of an entry that fails alone, `longest_of_line` of what fails as the line is down.
    What the platform asks for (Retry-After) is kept up to `most_asked`.
    `settle` passes before the platform is asked whether it has something. While the line is down
    and something waits, the platform is asked for something light every `between_questions`.
    """

    first: float = 1.0
    longest: float = 300.0
    longest_of_line: float = 30.0
    most_asked: float = 3600.0
    settle: float = INDEX_LAG
    between_questions: float = 5.0


class RetrySchedule:
    """Makes pauses; `random` gives numbers from 0 to 1, so that not all come back at once."""

    def __init__(self, pauses: RetryDelays, random: Callable[[], float]) -> None:
        self._pauses = pauses
        self._random = random

    def of_entry(self, attempts: int, *, everybody: bool, retry_after: float | None) -> float:
        """After so many attempts."""
        longest = self._pauses.longest_of_line if everybody else self._pauses.longest
        pause = backoff(attempts, self._pauses.first, longest, self._random)
        return self._at_least(retry_after, pause)

    def of_line(self, failures: int, retry_after: float | None) -> float:
        """After so many failures one after the other."""
        pauses = self._pauses
        pause = backoff(failures, pauses.first, pauses.longest_of_line, self._random)
        return self._at_least(retry_after, pause)

    def of_hearsay(self, in_vain: int) -> float:
        """Before it is believed once more that the line is back, after so many times in vain."""
        longest = self._pauses.between_questions
        return backoff(in_vain, self._pauses.first, longest) if in_vain else 0.0

    def _at_least(self, retry_after: float | None, pause: float) -> float:
        return max(min(retry_after or 0.0, self._pauses.most_asked), pause)


class PlatformReachability:
    """Whether the platform can be reached, as far as this process's attempts have shown.

    While it is down one attempt at a time shows whether it is back: after a pause, or at once when
    somebody else was answered. `up`: nothing speaks against it; a plain value, as it is asked for
    every answer of the platform.
    """

    def __init__(self, pacer: RetrySchedule, clock: Callable[[], float]) -> None:
        self._pacer = pacer
        self._clock = clock
        self._failures = 0
        self._next_at = 0.0
        self._turn = 0
        # When it was last said to be back, and how often that was wrong.
        self._heard_in = -1
        self._hanging = 0
        self._in_vain = 0
        self._believed_at = 0.0
        self.up = True

    @property
    def turn(self) -> int:
        """Counts the failures; an attempt remembers at which it began."""
        return self._turn

    @property
    def next_at(self) -> float:
        """The moment, on the clock, before which it is not tried."""
        return self._next_at

    def room(self, in_hand: int, parallel: int) -> int:
        """How many attempts may begin beside those in hand."""
        if self.up:
            return max(0, parallel - in_hand)
        # What was under way when the line was said to be back may hang on a dead connection.
        hanging = 0 if self.silent else min(self._hanging, parallel - 1)
        return 1 if in_hand <= hanging and self._clock() >= self._next_at else 0

    @property
    def silent(self) -> bool:
        """Whether it is down, and nobody was answered since."""
        return not self.up and self._heard_in != self._turn

    def answered(self) -> None:
        """The platform has answered an attempt."""
        self._failures = self._in_vain = 0
        self.up = True
        self._next_at = 0.0

    def heard(self, in_hand: int) -> bool:
        """The platform has answered somebody else; whether that ends a pause.

        One who gets other answers than attempts do, for hours, does not have them made all the
        time.
        """
        now = self._clock()
        if not self.silent or now < self._believed_at:
            return False
        self._heard_in = self._turn
        self._hanging = in_hand
        self._failures = 0
        self._next_at = now
        return True

    def undecided(self) -> None:
        """An attempt has ended that shows neither; the next one takes the usual time."""
        if not self.up:
            self._next_at = self._clock() + self._pacer.of_line(self._failures, None)

    def failed(self, turn: int, retry_after: float | None) -> None:
        """An attempt that began at `turn` has failed as all would.

        Those which were under way together count once.
        """
        if turn != self._turn:
            return
        self._turn += 1
        self._failures += 1
        self.up = False
        self._in_vain = self._in_vain + 1 if self._heard_in == turn else 0
        self._believed_at = self._clock() + self._pacer.of_hearsay(self._in_vain)
        self._next_at = self._clock() + self._pacer.of_line(self._failures, retry_after)
