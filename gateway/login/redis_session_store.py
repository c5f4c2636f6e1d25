"""A store for sessions and sign-ins in a Redis or Valkey server that replicas share.

Each entry is encrypted with the identifier that only the browser holds, and stored under the hash
of the identifier: a dump of the server reveals no content, with or without the gateway's own
secrets. Entries expire by the server's clock. Every failure of the server is an exception, which
`gateway.login.sessions` turns into a response.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Final

from gateway.login.session_store import SIGN_IN_LIFETIME, Session, SignedInUser, SignInState
from gateway.oauth.grants import RenewalGrant
from gateway.oauth.redis_token_store import RedisStore, redis_key, run_script
from gateway.oauth.sealed_values import ValueCipher
from gateway.oauth.token_response import AccessToken
from gateway.oauth.token_store import StoreKey, TokenLease
from gateway.secret import Secret

# The scripts change only existing entries: a session that was ended meanwhile must not reappear.
_SAVE: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'sealed', ARGV[1])
return 1
"""
_TOUCH: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'used', ARGV[1])
redis.call('PEXPIREAT', KEYS[1], ARGV[2])
return 1
"""


class RedisSessionStore(RedisStore):
    """Stores sessions (`session_store.SessionStore`).

    `encryption_key`: if given, it is needed in addition to decrypt entries, and the logout marks
    are stored as its HMAC, so that they reveal no user.
    """

    async def get(self, key: StoreKey) -> Session | None:
        session_key = redis_key(key.name, "session")
        async with self._client.pipeline(transaction=False) as commands:
            commands.time()
            commands.hmget(session_key, "sealed", "used")
            server_time, (sealed, used) = await commands.execute()
        if not isinstance(sealed, bytes) or not isinstance(used, bytes):
            return None
        plain = self._cipher(key, session_key).decrypt(sealed)
        return (
            None if plain is None else self._session(key, plain, float(used), _seconds(server_time))
        )

    async def add(self, session: Session, lifetime: float, max_lifetime: float) -> None:
        now = await self._now()
        session_key = redis_key(session.key.name, "session")
        async with self._client.pipeline(transaction=True) as commands:
            commands.hset(
                session_key, mapping={"sealed": self._seal_session(session, now), "used": repr(now)}
            )
            commands.pexpireat(session_key, _milliseconds(now + lifetime))
            await commands.execute()
        for mark in session.signed_in_user.logout_marks:
            async with self._client.pipeline(transaction=True) as commands:
                commands.sadd(self._mark_key(mark), session.key.name)
                commands.pexpireat(self._mark_key(mark), _milliseconds(now + max_lifetime))
                await commands.execute()

    async def touch(self, session: Session, lifetime: float) -> None:
        now = await self._now()
        session_key = redis_key(session.key.name, "session")
        expiry = str(_milliseconds(now + lifetime))
        await run_script(self._client, _TOUCH, session_key, repr(now), expiry)

    async def save(self, session: Session) -> bool:
        sealed = self._seal_session(session, await self._now())
        session_key = redis_key(session.key.name, "session")
        return bool(await run_script(self._client, _SAVE, session_key, sealed))

    async def delete(self, session: Session) -> None:
        name = session.key.name
        await self._client.delete(redis_key(name, "session"))
        for mark in session.signed_in_user.logout_marks:
            await self._client.srem(self._mark_key(mark), name)

    async def delete_by_mark(self, mark: str) -> int:
        mark_key = self._mark_key(mark)
        deleted = 0
        for name in await self._client.smembers(mark_key):
            text = name if isinstance(name, str) else name.decode("ascii")
            deleted += await self._client.delete(redis_key(text, "session"))
            await self._client.srem(mark_key, name)
        return deleted

    async def acquire_lease(self, session: Session) -> TokenLease | None:
        return await self.lease(redis_key(session.key.name, "renewal"))

    async def save_sign_in(self, key: StoreKey, sign_in: SignInState) -> None:
        sign_in_key = redis_key(key.name, "sign-in")
        sealed = self._cipher(key, sign_in_key).encrypt(
            {
                "verifier": sign_in.verifier.reveal(),
                "nonce": sign_in.nonce,
                "return_to": sign_in.return_to,
            }
        )
        await self._client.set(sign_in_key, sealed, px=_milliseconds(SIGN_IN_LIFETIME))

    async def pop_sign_in(self, key: StoreKey) -> SignInState | None:
        sign_in_key = redis_key(key.name, "sign-in")
        async with self._client.pipeline(transaction=True) as commands:
            commands.get(sign_in_key)
            commands.delete(sign_in_key)
            sealed, _ = await commands.execute()
        plain = (
            self._cipher(key, sign_in_key).decrypt(sealed) if isinstance(sealed, bytes) else None
        )
        if plain is None:
            return None
        return SignInState(Secret(plain["verifier"]), plain["nonce"], plain["return_to"])

    async def register_once(self, mark: str, lifetime: float) -> bool:
        seen_key = redis_key(mark, "seen")
        return bool(await self._client.set(seen_key, b"", nx=True, px=_milliseconds(lifetime)))

    def _cipher(self, key: StoreKey, storage_key: str) -> ValueCipher:
        return ValueCipher("session", storage_key, key.material, self._encryption_key)

    def _mark_key(self, mark: str) -> str:
        key = b"" if self._encryption_key is None else self._encryption_key.reveal().encode()
        return redis_key(hmac.digest(key, mark.encode(), hashlib.sha256).hex(), "sessions")

    def _seal_session(self, session: Session, now: float) -> bytes:
        session_key = redis_key(session.key.name, "session")
        offset = now - self._times.clock()
        token, renewal, signed_in_user = session.token, session.renewal, session.signed_in_user
        plain = {
            "identity": session.identity,
            "person": [signed_in_user.user, signed_in_user.name, signed_in_user.logout_marks],
            "began": session.started_at + offset,
            "token": [token.reveal(), token.received_at + offset, token.lifetime, token.scope],
            "refresh_token": renewal.refresh_token and renewal.refresh_token.reveal(),
            "cookies": {name: value.reveal() for name, value in renewal.cookies.items()},
            "sign_in": [session.state_digest, session.return_to],
        }
        return self._cipher(session.key, session_key).encrypt(plain)

    def _session(self, key: StoreKey, plain: Mapping[str, Any], used: float, now: float) -> Session:
        # Stored times are of the server's clock, those of a `Session` of the monotonic clock here.
        offset = now - self._times.clock()
        user, name, marks = plain["person"]
        state_digest, return_to = plain.get("sign_in", ("", ""))  # absent in sessions of 1.0.0
        return Session(
            key,
            plain["identity"],
            SignedInUser(user, name, tuple(marks)),
            started_at=plain["began"] - offset,
            last_used_at=used - offset,
            token=self._token(plain["token"], offset),
            renewal=_renewal(plain),
            state_digest=state_digest,
            return_to=return_to,
        )

    def _token(self, plain: list[Any], offset: float) -> AccessToken:
        value, received_at, lifetime, scope = plain
        local_received_at = received_at - offset
        remaining = local_received_at + lifetime - self._times.clock()
        wall_expiry = self._times.wall_clock() + remaining
        return AccessToken(
            value,
            received_at=local_received_at,
            lifetime=lifetime,
            wall_expiry=wall_expiry,
            scope=scope,
        )

    async def _now(self) -> float:
        return _seconds(await self._client.time())


def _renewal(plain: Mapping[str, Any]) -> RenewalGrant:
    refresh_token = plain["refresh_token"]
    cookies = {name: Secret(value) for name, value in plain["cookies"].items()}
    return RenewalGrant(None if refresh_token is None else Secret(refresh_token), cookies)


def _seconds(server_time: tuple[int, int]) -> float:
    return server_time[0] + server_time[1] / 1_000_000


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
