"""Durations as text for users and operators."""

from __future__ import annotations

from gateway.i18n import Message


def format_duration(seconds: float) -> Message:
    """Return `45 s`, `5 min`, `3 h`, `3 h 20 min` or `2 days`, rounded: 10799 seconds are 3 h."""
    if seconds < 90:
        text = f"{seconds:.2g}" if seconds < 10 else f"{seconds:.0f}"
        return Message("{seconds} s", seconds=text)
    rounded_seconds, minutes = round(seconds), round(seconds / 60)
    if minutes < 60:
        if abs(60 * minutes - rounded_seconds) <= rounded_seconds / 50:
            return Message("{minutes} min", minutes=minutes)
        return Message(
            "{minutes} min {seconds} s", minutes=rounded_seconds // 60, seconds=rounded_seconds % 60
        )
    if minutes < 48 * 60:
        hours, minutes = divmod(minutes, 60)
        if not minutes:
            return Message("{hours} h", hours=hours)
        return Message("{hours} h {minutes} min", hours=hours, minutes=minutes)
    days, hours = divmod(round(seconds / 3600), 24)
    if not hours:
        return Message("{days} days", days=days)
    return Message("{days} days {hours} h", days=days, hours=hours)
