"""One Ethereum JSON-RPC endpoint: web3 on trio, and the one place where its errors are mapped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, TypeVar

import httpx
import trio
from eth_abi.abi import decode as abi_decode
from eth_abi.exceptions import DecodingError
from eth_utils.address import to_checksum_address
from web3 import AsyncWeb3
from web3.exceptions import (
    BadFunctionCallOutput,
    BlockNotFound,
    ContractLogicError,
    TransactionNotFound,
    Web3Exception,
    Web3RPCError,
)
from web3.providers.async_base import AsyncJSONBaseProvider
from web3.types import RPCEndpoint, RPCResponse

from consensus.digest import keccak
from contracts.loader import artifact
from settlement.errors import ChainUnavailable, RpcRefused, TransactionReverted, WrongChain

RESPONSE_BYTES_MAX = 32 << 20
TIMEOUT_S = 10.0
CONNECTIONS_MAX = 8
CONTRACTS = ("TestToken", "Vault", "Inbox", "Checkpoints")

Finality = str | int
"""A block tag ("finalized" or "safe"), or a depth below the newest block."""

T = TypeVar("T")


class TrioHTTPProvider(AsyncJSONBaseProvider):
    """web3's requests over httpx, which runs on trio; answers are bounded."""

    def __init__(self, url: str, client: httpx.AsyncClient) -> None:
        super().__init__()
        self._url = url
        self._client = client

    async def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        request = self.encode_rpc_request(method, params)
        headers = {"Content-Type": "application/json"}
        body = bytearray()
        async with self._client.stream(
            "POST", self._url, content=request, headers=headers
        ) as response:
            response.raise_for_status()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > RESPONSE_BYTES_MAX:
                    raise httpx.DecodingError("the answer is too large")
        return self.decode_rpc_response(bytes(body))

    async def is_connected(self, show_traceback: bool = False) -> bool:
        return True


class Rpc:
    """An endpoint whose calls raise only what `settlement.errors` names."""

    def __init__(self, url: str, client: httpx.AsyncClient) -> None:
        provider = TrioHTTPProvider(url, client)
        self.w3: AsyncWeb3[TrioHTTPProvider] = AsyncWeb3(provider, middleware=[])

    async def ask(self, request: Awaitable[Any], read: Callable[[Any], T]) -> T:
        """Return what `read` makes of a web3 call's answer; map whatever either raises.

        Errors: ChainUnavailable, RpcRefused, TransactionReverted.
        """
        try:
            return read(await request)
        except ContractLogicError as error:
            raise TransactionReverted(_reason(error)) from None
        except (BlockNotFound, TransactionNotFound) as error:
            raise RpcRefused(f"not found: {error}"[:500]) from None
        except Web3RPCError as error:
            raise RpcRefused(_rpc_message(error)) from None
        except BadFunctionCallOutput as error:
            raise ChainUnavailable(f"no such contract there: {error}"[:500]) from None
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            raise ChainUnavailable(f"{type(error).__name__}: {error}"[:500]) from None
        except (
            Web3Exception,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            IndexError,
        ) as error:
            # An endpoint can answer anything; web3's formatters then fail in as many ways.
            raise ChainUnavailable(f"malformed answer: {error!r}"[:500]) from None

    async def chain_id(self) -> int:
        """Return the chain's id. Errors: as `ask`."""
        return await self.ask(self.w3.eth.chain_id, int)

    async def check_chain(self, expected: int) -> None:
        """Errors: WrongChain when the endpoint serves another chain; as `ask`."""
        actual = await self.chain_id()
        if actual != expected:
            raise WrongChain(expected, actual)

    async def newest_block(self) -> int:
        """Return the newest block's number. Errors: as `ask`."""
        return await self.ask(self.w3.eth.block_number, int)

    async def final_block(self, finality: Finality) -> int:
        """Return the last final block's number, -1 when there is none yet. Errors: as `ask`."""
        if isinstance(finality, int):
            return max(-1, await self.newest_block() - finality)
        assert finality in ("finalized", "safe")
        request: Any = finality
        return await self.ask(self.w3.eth.get_block(request), lambda block: int(block["number"]))

    async def balance(self, address: bytes) -> int:
        """Return the wei of `address`. Errors: as `ask`."""
        return await self.ask(self.w3.eth.get_balance(checksum(address)), int)

    def contract(self, name: str, address: bytes) -> Any:
        """Return web3's contract object for the artifact `name` at `address`."""
        return self.w3.eth.contract(address=checksum(address), abi=artifact(name).abi)


@asynccontextmanager
async def open_rpc(url: str, timeout_s: float = TIMEOUT_S) -> AsyncIterator[Rpc]:
    """Give an endpoint for as long as the context lasts; nothing is asked of it yet."""
    limits = httpx.Limits(max_connections=CONNECTIONS_MAX)
    client = httpx.AsyncClient(timeout=timeout_s, limits=limits, trust_env=False)
    try:
        yield Rpc(url, client)
    finally:
        with trio.CancelScope(deadline=trio.current_time() + 1, shield=True):
            await client.aclose()


def checksum(address: bytes) -> Any:
    """Return an address as web3 takes it."""
    assert len(address) == 20
    return to_checksum_address(address)


@cache
def _selectors() -> dict[bytes, tuple[str, list[str]]]:
    """Return our contracts' errors by selector: name and types."""
    found = {bytes.fromhex("08c379a0"): ("Error", ["string"])}
    found[bytes.fromhex("4e487b71")] = ("Panic", ["uint256"])
    for name in CONTRACTS:
        for entry in artifact(name).abi:
            if entry["type"] == "error":
                types = [part["type"] for part in entry["inputs"]]
                signature = f"{entry['name']}({','.join(types)})"
                found[keccak(signature.encode())[:4]] = (entry["name"], types)
    return found


def revert_reason(data: bytes) -> str:
    """Return a contract's error as `Name(arguments)`; hex when it is none of ours."""
    known = _selectors().get(data[:4])
    if known is None:
        return f"0x{data[:100].hex()}" if data else "no reason given"
    name, types = known
    try:
        values = abi_decode(types, data[4:])
    except (DecodingError, UnicodeDecodeError):
        return f"{name}(undecodable)"
    shown = [f"0x{value.hex()}" if isinstance(value, bytes) else str(value) for value in values]
    return f"{name}({', '.join(shown)})"


def _reason(error: ContractLogicError) -> str:
    if isinstance(error.data, str) and error.data.startswith("0x"):
        try:
            return revert_reason(bytes.fromhex(error.data[2:]))
        except ValueError:
            pass
    return str(error.message or error)[:500]


def _rpc_message(error: Web3RPCError) -> str:
    response = error.rpc_response
    detail = response.get("error") if isinstance(response, dict) else None
    if isinstance(detail, dict) and isinstance(detail.get("message"), str):
        return str(detail["message"])[:500]
    return str(error)[:500]
