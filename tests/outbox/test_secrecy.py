"""What the outbox's files reveal without the key."""

from __future__ import annotations

import base64
import stat
from dataclasses import replace
from pathlib import Path

from gateway.outbox.entry import EntryState, StoredResponse
from tests.outbox.attempts import claim, finish, stored_request
from tests.outbox.drafts import draft, write
from tests.outbox.places import Place, PostgresPlace, SqlitePlace, opened

NAME = "Карим Абдуллаев"
LATIN = "Karim Abdullayev"
PINFL = "31509860230031"
NEEDLES = {
    "name": NAME,
    "name in Latin": LATIN,
    "PINFL": PINFL,
    "patient id": "pat-7f3a9c",
    "resource id": "obs-5e21d4",
    "request id": "r-obs-5e21d4",
    "credential": "cred-lab-north",
    "finding": "haemoglobin",
}


def spellings(text: str) -> set[bytes]:
    plain = text.encode()
    return {
        plain,
        text.encode("utf-16-le"),
        text.encode("unicode_escape"),
        plain.hex().encode(),
        base64.b64encode(plain)[:-4],
    }


def revealed_by(files: list[Path]) -> dict[str, str]:
    found = {}
    for file in files:
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            continue  # the server drops what it keeps for its next start
        for what, text in NEEDLES.items():
            if any(spelling in data for spelling in spellings(text)):
                found[what] = file.name
    return found


async def test_files_reveal_no_patient_data(place: Place, tmp_path: Path) -> None:
    body = f'{{"subject":"Patient/pat-7f3a9c","name":"{NAME} {LATIN}","pinfl":"{PINFL}"}}'.encode()
    base = write("obs-5e21d4", body=body * 50, fields=((b"x-note", NAME.encode()),))
    request = replace(
        base,
        target_suffix=f"Observation/obs-5e21d4?subject=Patient/pat-7f3a9c&identifier={PINFL}",
        credential="cred-lab-north",
    )
    orders = frozenset({"Patient/pat-7f3a9c", f"identifier|{PINFL}", "Observation/obs-5e21d4"})
    made = replace(draft("a"), request=request, ordering_keys=orders)
    answer = StoredResponse(422, ((b"location", PINFL.encode()),), body + b"haemoglobin")
    async with opened(place) as store:
        ends = (EntryState.DELIVERED, EntryState.FAILED, EntryState.UNCLEAR)
        for end in ends:
            await store.enqueue(replace(made, caller=f"lis-{end}"))
        claimed = await claim(store)
        for entry, end in zip(claimed, ends, strict=True):
            assert await finish(store, "me", entry, end, answer)
        dropped = await store.enqueue(replace(made, caller="his"))
        await store.apply_action(dropped.id, EntryState.DROPPED)
        assert await store.is_blocked("lis-failed", list(orders))
        await flush_pages(place)
        files = place.files()
        assert files
        assert revealed_by(files) == {}
        assert await stored_request(store, claimed[1].id) == replace(request)
        # They would be found if they were there.
        control = tmp_path / "control"
        control.write_bytes(body)
        assert revealed_by([control])
    assert revealed_by(place.files()) == {}


async def flush_pages(place: Place) -> None:
    """Have PostgreSQL write its pages to the disk."""
    if isinstance(place, PostgresPlace):
        connection = await place.server.connect(place.name)
        await connection.execute("CHECKPOINT")
        await connection.close()


async def test_files_are_private(sqlite_place: SqlitePlace) -> None:
    async with opened(sqlite_place) as store:
        await store.enqueue(draft("a"))
        files = sqlite_place.files()
        assert len(files) == 4
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_repr_shows_no_patient_data() -> None:
    request = write(PINFL, body=NAME.encode())
    made = replace(draft("a"), request=request, ordering_keys=frozenset({PINFL}))
    answer = StoredResponse(422, ((b"location", PINFL.encode()),), NAME.encode())
    for thing in (made, request, answer):
        assert PINFL not in repr(thing)
        assert NAME not in repr(thing)
