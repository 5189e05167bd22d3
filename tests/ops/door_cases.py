"""Everything wrong that a stranger can post, with the error that the door owes for it.

The cases know only a base URL, a key and a clock, so that they run against any node's door: the
small one of test_gateway.py and a real network's alike.
"""

from __future__ import annotations

import base64
import json
from typing import NamedTuple

from msgspec.structs import replace

from consensus.command import (
    COMMAND_BYTES_MAX,
    EXPIRY_DOOR_MAX_MS,
    Command,
    command_digest,
    decode_command,
    encode_command,
)
from consensus.crypto import sign_recoverable
from matcher.actions import (
    BUY,
    LIMIT,
    Batch,
    PlaceOrder,
    Withdraw,
    encode_action,
)
from matcher.units import QTY_MAX
from ops.admission import SigningDomain
from ops.client_keys import SignedCommand, TraderKey

JSON = {"content-type": "application/json"}


class Door(NamedTuple):
    """The door under test: `now_ms` is its node's clock, `instrument` one that it lists."""

    base: str
    domain: SigningDomain
    now_ms: int
    wallet: TraderKey
    session: TraderKey
    instrument: int

    def order(self, client_id: int, qty: int = 5, ahead_ms: int = 30_000) -> SignedCommand:
        """Return a good order, signed by the session key."""
        return self.session.sign(self.domain, self.place(client_id, qty), self.now_ms + ahead_ms)

    def place(self, client_id: int, qty: int = 5) -> PlaceOrder:
        """Return a good order's action."""
        return PlaceOrder(
            self.wallet.address, 0, self.instrument, client_id, BUY, LIMIT, 5_000_000, qty
        )


class Case(NamedTuple):
    """One bad request: what to send, and the status and code that must come back."""

    name: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int
    code: str


def single(body: bytes) -> bytes:
    """Return the request of one command."""
    return json.dumps({"body": base64.b64encode(body).decode()}).encode()


def many(bodies: list[bytes]) -> bytes:
    """Return the request of many commands."""
    return json.dumps({"commands": [base64.b64encode(b).decode() for b in bodies]}).encode()


def bad_commands(door: Door) -> list[tuple[str, bytes, str]]:
    """Return (name, command bytes, code) for commands that no node may ever see."""
    good = door.order(1).body
    oversize = Command(door.now_ms + 30_000, bytes(20), bytes(COMMAND_BYTES_MAX), bytes(65))
    return [
        ("no bytes", b"", "malformed"),
        ("garbage bytes", bytes(range(256)), "malformed"),
        ("a tail after the command", good + b"\x00", "malformed"),
        ("cut short", good[:-1], "malformed"),
        ("not canonical", _not_canonical(good), "malformed"),
        ("oversize", encode_command(oversize), "too_large"),
        ("expired", door.order(1, ahead_ms=-1).body, "expired"),
        ("expired long ago", door.order(1, ahead_ms=-1_000_000).body, "expired"),
        (
            "expires too far ahead",
            door.order(1, ahead_ms=EXPIRY_DOOR_MAX_MS + 60_000).body,
            "expires_too_late",
        ),
        *_bad_signatures(door),
        *_bad_payloads(door),
    ]


def _bad_signatures(door: Door) -> list[tuple[str, bytes, str]]:
    expires = door.now_ms + 30_000
    action = door.place(1)
    payload = encode_action(action)
    other = TraderKey(b"\x77" * 32)
    foreign = SigningDomain(b"\x00" * 32, b"\x00" * 32)
    withdraw = Withdraw(door.wallet.address, 0, 5, door.wallet.address, b"\x01" * 32)
    signature = decode_command(door.wallet.sign(door.domain, withdraw, expires).body).signature
    moved = Command(expires + 1, door.wallet.address, encode_action(withdraw), signature)
    unsigned = Command(expires, door.session.address, payload, bytes(65))
    short = Command(expires, door.session.address, payload, bytes(64))
    elsewhere = door.session.sign(foreign, action, expires).body
    by_session = _by(door.session, door, expires, encode_action(withdraw))
    return [
        ("signature of 64 bytes", encode_command(short), "malformed"),
        ("no signature", encode_command(unsigned), "bad_signature"),
        ("bad signature", _flipped(door.order(1).body), "bad_signature"),
        ("another's signature", _by(other, door, expires, payload), "bad_signature"),
        ("another network's signature", elsewhere, "bad_signature"),
        ("a wallet's signature in a later envelope", encode_command(moved), "bad_signature"),
        ("a withdrawal signed as a session signs", by_session, "bad_signature"),
    ]


def _bad_payloads(door: Door) -> list[tuple[str, bytes, str]]:
    expires = door.now_ms + 30_000
    good = door.place(1)
    nowhere = replace(good, instrument=4_000)

    def raw(payload: bytes) -> bytes:
        return _by(door.session, door, expires, payload)

    def placed(**changes: int | bytes) -> bytes:
        return raw(encode_action(replace(good, **changes)))

    return [
        ("unknown action", raw(b"\x91\xa4boom"), "malformed"),
        ("payload of garbage", raw(b"\xff" * 50), "malformed"),
        ("empty payload", raw(b""), "malformed"),
        ("an action with a tail", raw(encode_action(good) + b"\x00"), "malformed"),
        ("unknown instrument", placed(instrument=4_000), "unknown_instrument"),
        ("the same in a batch", raw(encode_action(Batch((good, nowhere)))), "unknown_instrument"),
        ("an empty batch", raw(encode_action(Batch(()))), "batch_size"),
        ("a batch of 51", raw(encode_action(Batch((good,) * 51))), "batch_size"),
        ("more than the instrument's maximum", placed(qty=QTY_MAX), "bad_qty"),
        ("no quantity", placed(qty=0), "bad_qty"),
        ("negative quantity", placed(qty=-5), "bad_qty"),
        ("no price", placed(price=0), "bad_price"),
        ("no such side", placed(side=9), "bad_side"),
        ("no such subaccount", placed(subaccount=32), "bad_subaccount"),
        ("wallet of 19 bytes", placed(wallet=b"\x01" * 19), "bad_address"),
    ]


def _by(key: TraderKey, door: Door, expires: int, payload: bytes) -> bytes:
    """Return the session's envelope with `key`'s signature over the command's digest."""
    secret = key._secret
    signer = door.session.address
    digest = command_digest(door.domain.network, expires, signer, payload)
    return encode_command(Command(expires, signer, payload, sign_recoverable(secret, digest)))


def _flipped(body: bytes) -> bytes:
    """Return a command whose signature's first byte differs (the signature comes last)."""
    at = len(body) - 65
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


def _not_canonical(body: bytes) -> bytes:
    """Return the same command with its array header in the long form."""
    assert body[0] == 0x94
    return b"\xdc\x00\x04" + body[1:]


def _posts(door: Door) -> list[Case]:
    good = door.order(2).body
    posts: list[tuple[str, dict[str, str], bytes, int, str]] = [
        ("not JSON", JSON, b"\x00\xff garbage", 400, "bad_json"),
        ("empty body", JSON, b"", 400, "bad_json"),
        ("a list", JSON, b"[]", 400, "bad_json"),
        ("neither form", JSON, b"{}", 400, "bad_json"),
        ("both forms", JSON, b'{"body":"aa==","commands":[]}', 400, "bad_json"),
        ("an unknown field", JSON, b'{"body":"aa==","x":1}', 400, "bad_json"),
        ("not base64", JSON, b'{"body":"!!!!"}', 400, "bad_json"),
        ("not UTF-8", JSON, b'{"body":"\xff\xfe"}', 400, "bad_json"),
        ("a number", JSON, b'{"commands":[1]}', 400, "bad_json"),
        ("null", JSON, b'{"body":null}', 400, "bad_json"),
        ("deep nesting", JSON, b'{"body":' + b"[" * 20_000, 400, "bad_json"),
        ("no commands", JSON, b'{"commands":[]}', 400, "too_many"),
        ("51 commands", JSON, many([good] * 51), 400, "too_many"),
        ("no content type", {}, single(good), 415, "unsupported_media_type"),
        ("a form", {"content-type": "text/plain"}, single(good), 415, "unsupported_media_type"),
    ]
    return [Case(name, "POST", "/v1/commands", *rest) for name, *rest in posts]  # type: ignore[arg-type]


def _gets() -> list[Case]:
    gets: list[tuple[str, str, int, str]] = [
        ("no such resource", "/v1/nothing", 404, "not_found"),
        ("the root", "/", 404, "not_found"),
        ("an unknown id", "/v1/receipts/" + "00" * 40, 404, "unknown_id"),
        ("a short id", "/v1/receipts/00", 400, "bad_id"),
        ("an id of letters", "/v1/receipts/" + "zz" * 40, 400, "bad_id"),
        ("a path for an id", "/v1/receipts/../../etc/passwd", 404, "not_found"),
        ("an escaped path", "/v1/receipts/%2e%2e%2fetc%2fpasswd", 400, "bad_id"),
        ("no id", "/v1/receipts/", 404, "not_found"),
        ("unknown instrument", "/v1/book?instrument=4000", 404, "unknown_instrument"),
        ("no instrument", "/v1/book", 400, "missing_parameter"),
        ("a negative instrument", "/v1/book?instrument=-1", 400, "bad_parameter"),
        ("a huge instrument", "/v1/book?instrument=" + "9" * 500, 400, "bad_parameter"),
        ("depth 0", "/v1/book?instrument=0&depth=0", 400, "bad_parameter"),
        ("depth 201", "/v1/book?instrument=0&depth=201", 400, "bad_parameter"),
        ("a parameter twice", "/v1/book?instrument=0&instrument=1", 400, "bad_parameter"),
        ("an unknown parameter", "/v1/book?instrument=0&x=1", 400, "bad_parameter"),
        ("too many parameters", "/v1/status?" + "&".join(["a=1"] * 50), 400, "bad_parameter"),
        ("no wallet", "/v1/account", 400, "missing_parameter"),
        ("a bad wallet", "/v1/account?wallet=0x12", 400, "bad_parameter"),
        ("an unknown account", "/v1/account?wallet=" + "11" * 20, 404, "unknown_account"),
        ("a limit of 501", "/v1/outcomes?limit=501", 400, "bad_parameter"),
        ("a wait of an hour", "/v1/outcomes?wait_ms=3600000", 400, "bad_parameter"),
        ("no withdrawal", "/v1/proof/withdrawal/999999", 404, "no_proof"),
        ("a withdrawal of letters", "/v1/proof/withdrawal/x", 400, "bad_index"),
        ("get on a post", "/v1/commands", 405, "method_not_allowed"),
    ]
    return [Case(name, "GET", path, {}, b"", status, code) for name, path, status, code in gets]


def cases(door: Door) -> list[Case]:
    """Return every bad request; after all of them the node must have seen nothing."""
    ids = json.dumps({"ids": ["00" * 40] * 101}).encode()
    commands = [
        (name, single(body), 413 if code == "too_large" else 400, code)
        for name, body, code in bad_commands(door)
    ]
    return [
        *(Case(name, "POST", "/v1/commands", JSON, *rest) for name, *rest in commands),  # type: ignore[arg-type]
        *_posts(door),
        *_gets(),
        Case("101 receipts", "POST", "/v1/receipts", JSON, ids, 400, "too_many"),
        Case("bad id", "POST", "/v1/receipts", JSON, b'{"ids":["x"]}', 400, "bad_id"),
        Case("bad ids", "POST", "/v1/receipts", JSON, b"{}", 400, "bad_json"),
        Case("delete", "DELETE", "/v1/commands", {}, b"", 405, "method_not_allowed"),
        Case("post on a get", "POST", "/v1/status", JSON, b"", 405, "method_not_allowed"),
        Case("trace", "TRACE", "/metrics", {}, b"", 405, "method_not_allowed"),
    ]
