"""The embedded chain's JSON-RPC methods: bytes in, bytes out, whatever the bytes are.

Source: the Ethereum execution API specification; error codes and texts as geth's, since clients
read them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import msgspec
from eth_abi.abi import decode as abi_decode
from eth_abi.exceptions import DecodingError

from consensus.digest import keccak
from ops.chain.embedded import (
    PRIORITY_FEE,
    RAW_BYTES_MAX,
    Block,
    Call,
    EmbeddedChain,
    Event,
    Mined,
    Rejected,
    Reverted,
    Unknown,
)

REQUEST_BYTES_MAX = 1 << 20
BATCH_MAX = 100
LOG_RESULTS_MAX = 10_000
LOG_FILTER_MAX = 64
FEE_HISTORY_MAX = 128
ERROR_STRING = bytes.fromhex("08c379a0")

_PARSE, _INVALID, _NO_METHOD, _BAD_PARAMS, _SERVER, _REVERT = (
    -32700,
    -32600,
    -32601,
    -32602,
    -32000,
    3,
)


class RpcError(Exception):
    """An answer that is an error; `data` is hex or None."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.data = code, message, data


def quantity(value: int) -> str:
    """Return an integer as JSON-RPC writes it."""
    return hex(value)


def text(data: bytes) -> str:
    """Return bytes as JSON-RPC writes them."""
    return "0x" + bytes(data).hex()


def answer(chain: EmbeddedChain, body: bytes) -> bytes:
    """Return the JSON answer to one request or batch; a bad one is an error object."""
    if len(body) > REQUEST_BYTES_MAX:
        return _encode(_failure(None, RpcError(_INVALID, "request too large")))
    try:
        request = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _encode(_failure(None, RpcError(_PARSE, "parse error")))
    if isinstance(request, list):
        if not 0 < len(request) <= BATCH_MAX:
            return _encode(_failure(None, RpcError(_INVALID, f"a batch has 1 to {BATCH_MAX}")))
        return _encode([_one(chain, single) for single in request])
    return _encode(_one(chain, request))


def _one(chain: EmbeddedChain, request: Any) -> dict[str, Any]:
    id_ = request.get("id") if isinstance(request, dict) else None
    try:
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            raise RpcError(_INVALID, "invalid request")
        method = METHODS.get(request["method"])
        if method is None:
            name = request["method"][:64]
            raise RpcError(_NO_METHOD, f"the method {name} does not exist/is not available")
        params = request.get("params", [])
        if not isinstance(params, list):
            raise RpcError(_BAD_PARAMS, "params must be a list")
        return {"jsonrpc": "2.0", "id": id_, "result": method(chain, params)}
    except RpcError as error:
        return _failure(id_, error)
    except Rejected as error:
        return _failure(id_, RpcError(_SERVER, str(error)))
    except Unknown as error:
        return _failure(id_, RpcError(_SERVER, str(error)))
    except Reverted as error:
        return _failure(id_, _revert(error))


def _failure(id_: Any, error: RpcError) -> dict[str, Any]:
    body: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.data is not None:
        body["data"] = error.data
    return {"jsonrpc": "2.0", "id": id_, "error": body}


def _revert(error: Reverted) -> RpcError:
    """Return the error that clients decode: code 3 and the contract's data."""
    if str(error) != "execution reverted":
        return RpcError(_SERVER, str(error))
    message = "execution reverted"
    if error.data[:4] == ERROR_STRING:
        # Without a readable reason, the contract's own bytes are in `data` all the same.
        with contextlib.suppress(DecodingError, UnicodeDecodeError):
            message += f": {abi_decode(['string'], error.data[4:])[0]}"
    return RpcError(_REVERT, message, text(error.data))


def _encode(value: Any) -> bytes:
    return msgspec.json.encode(value)


# Parameters


def _param(params: list[Any], index: int, default: Any = None) -> Any:
    return params[index] if index < len(params) else default


def _bytes(value: Any, size: int | None = None, bytes_max: int = RAW_BYTES_MAX) -> bytes:
    if not isinstance(value, str) or not value.startswith("0x") or len(value) > 2 + 2 * bytes_max:
        raise RpcError(_BAD_PARAMS, "expected 0x-prefixed hex")
    try:
        data = bytes.fromhex(value[2:])
    except ValueError:
        raise RpcError(_BAD_PARAMS, "expected 0x-prefixed hex") from None
    if size is not None and len(data) != size:
        raise RpcError(_BAD_PARAMS, f"expected {size} bytes")
    return data


def _int(value: Any) -> int:
    if not isinstance(value, str) or not 3 <= len(value) <= 66 or not value.startswith("0x"):
        raise RpcError(_BAD_PARAMS, "expected a 0x-prefixed quantity")
    try:
        return int(value[2:], 16)
    except ValueError:
        raise RpcError(_BAD_PARAMS, "expected a 0x-prefixed quantity") from None


def _number(chain: EmbeddedChain, tag: Any) -> int:
    """Return the block a tag names; the newest one is final, since there is one miner."""
    if tag in (None, "latest", "pending", "safe", "finalized"):
        return chain.number
    if tag == "earliest":
        return 0
    return _int(tag)


def _call(params: list[Any]) -> Call:
    fields = _param(params, 0)
    if not isinstance(fields, dict):
        raise RpcError(_BAD_PARAMS, "expected a call object")
    data = fields.get("input", fields.get("data"))
    to, gas, sender = fields.get("to"), fields.get("gas"), fields.get("from")
    value = fields.get("value")
    return Call(
        sender=bytes(20) if sender is None else _bytes(sender, 20),
        to=None if to in (None, "", "0x") else _bytes(to, 20),
        data=b"" if data is None else _bytes(data),
        value=0 if value is None else _int(value),
        gas=None if gas is None else _int(gas),
    )


# Methods


def _get_block(chain: EmbeddedChain, params: list[Any]) -> Any:
    try:
        block = chain.block(_number(chain, _param(params, 0)))
    except Unknown:
        return None
    return _block_json(chain, block, full=bool(_param(params, 1, False)))


def _get_block_by_hash(chain: EmbeddedChain, params: list[Any]) -> Any:
    try:
        block = chain.block_by_hash(_bytes(_param(params, 0), 32))
    except Unknown:
        return None
    return _block_json(chain, block, full=bool(_param(params, 1, False)))


def _block_json(chain: EmbeddedChain, block: Block, full: bool) -> dict[str, Any]:
    header = block.header
    transactions: list[Any] = [text(hash_) for hash_ in block.transactions]
    if full:
        mined = [chain.mined(hash_) for hash_ in block.transactions]
        transactions = [_transaction_json(chain, m.transaction, m) for m in mined if m]
    return {
        "number": quantity(header.block_number),
        "hash": text(header.hash),
        "parentHash": text(header.parent_hash),
        "nonce": text(header.nonce),
        "sha3Uncles": text(header.uncles_hash),
        "logsBloom": text(header.bloom.to_bytes(256, "big")),
        "transactionsRoot": text(header.transaction_root),
        "stateRoot": text(header.state_root),
        "receiptsRoot": text(header.receipt_root),
        "miner": text(header.coinbase),
        "difficulty": quantity(header.difficulty),
        "totalDifficulty": quantity(0),
        "mixHash": text(header.mix_hash),
        "extraData": text(header.extra_data),
        "size": quantity(600),
        "gasLimit": quantity(header.gas_limit),
        "gasUsed": quantity(header.gas_used),
        "timestamp": quantity(header.timestamp),
        "baseFeePerGas": quantity(header.base_fee_per_gas),
        "withdrawals": [],
        "withdrawalsRoot": text(header.withdrawals_root),
        "blobGasUsed": quantity(header.blob_gas_used),
        "excessBlobGas": quantity(header.excess_blob_gas),
        "parentBeaconBlockRoot": text(header.parent_beacon_block_root),
        "requestsHash": text(header.requests_hash),
        "uncles": [],
        "transactions": transactions,
    }


def _transaction_json(chain: EmbeddedChain, transaction: Any, mined: Mined | None) -> Any:
    max_fee = transaction.max_fee_per_gas
    return {
        "type": quantity(getattr(transaction, "type_id", None) or 0),
        "chainId": quantity(chain.chain_id),
        "hash": text(transaction.hash),
        "nonce": quantity(transaction.nonce),
        "from": text(transaction.sender),
        "to": text(transaction.to) if transaction.to else None,
        "value": quantity(transaction.value),
        "gas": quantity(transaction.gas),
        "gasPrice": quantity(mined.gas_price if mined else max_fee),
        "maxFeePerGas": quantity(max_fee),
        "maxPriorityFeePerGas": quantity(transaction.max_priority_fee_per_gas),
        "input": text(transaction.data),
        "blockHash": text(mined.block_hash) if mined else None,
        "blockNumber": quantity(mined.block) if mined else None,
        "transactionIndex": quantity(mined.index) if mined else None,
        "v": quantity(transaction.y_parity),
        "yParity": quantity(transaction.y_parity),
        "r": quantity(transaction.r),
        "s": quantity(transaction.s),
    }


def _get_transaction(chain: EmbeddedChain, params: list[Any]) -> Any:
    hash_ = _bytes(_param(params, 0), 32)
    mined = chain.mined(hash_)
    transaction = mined.transaction if mined else chain.waiting(hash_)
    return None if transaction is None else _transaction_json(chain, transaction, mined)


def _get_receipt(chain: EmbeddedChain, params: list[Any]) -> Any:
    mined = chain.mined(_bytes(_param(params, 0), 32))
    if mined is None:
        return None
    return {
        "type": quantity(getattr(mined.transaction, "type_id", None) or 0),
        "status": quantity(int(mined.ok)),
        "transactionHash": text(mined.hash),
        "transactionIndex": quantity(mined.index),
        "blockHash": text(mined.block_hash),
        "blockNumber": quantity(mined.block),
        "from": text(mined.sender),
        "to": text(mined.transaction.to) if mined.transaction.to else None,
        "contractAddress": text(mined.created) if mined.created else None,
        "gasUsed": quantity(mined.gas_used),
        "cumulativeGasUsed": quantity(mined.cumulative_gas),
        "effectiveGasPrice": quantity(mined.gas_price),
        "logsBloom": text(mined.bloom.to_bytes(256, "big")),
        "logs": [_event_json(event) for event in mined.events],
    }


def _event_json(event: Event) -> dict[str, Any]:
    return {
        "address": text(event.address),
        "topics": [text(topic) for topic in event.topics],
        "data": text(event.data),
        "blockNumber": quantity(event.block),
        "blockHash": text(event.block_hash),
        "transactionHash": text(event.transaction),
        "transactionIndex": quantity(event.transaction_index),
        "logIndex": quantity(event.index),
        "removed": False,
    }


def _get_logs(chain: EmbeddedChain, params: list[Any]) -> Any:
    filter_ = _param(params, 0)
    if not isinstance(filter_, dict):
        raise RpcError(_BAD_PARAMS, "expected a filter object")
    if filter_.get("blockHash") is not None:
        header = chain.block_by_hash(_bytes(filter_["blockHash"], 32)).header
        first = last = int(header.block_number)
    else:
        first = _number(chain, filter_.get("fromBlock"))
        last = min(_number(chain, filter_.get("toBlock")), chain.number)
    addresses = _choices(filter_.get("address"), 20)
    topics = filter_.get("topics") or []
    if not isinstance(topics, list) or len(topics) > 4:
        raise RpcError(_BAD_PARAMS, "expected up to 4 topics")
    wanted = [_choices(topic, 32) for topic in topics]
    found: list[Any] = []
    for event in chain.events(first, last):
        if addresses is not None and event.address not in addresses:
            continue
        if not _matches(event.topics, wanted):
            continue
        if len(found) >= LOG_RESULTS_MAX:
            raise RpcError(_SERVER, f"query returned more than {LOG_RESULTS_MAX} results")
        found.append(_event_json(event))
    return found


def _choices(value: Any, size: int) -> list[bytes] | None:
    """Return what a filter's position may be, or None for anything."""
    if value is None or value == []:
        return None
    values = value if isinstance(value, list) else [value]
    if len(values) > LOG_FILTER_MAX:
        raise RpcError(_BAD_PARAMS, f"at most {LOG_FILTER_MAX} alternatives")
    return [_bytes(single, size) for single in values]


def _matches(topics: tuple[bytes, ...], wanted: list[list[bytes] | None]) -> bool:
    if len(wanted) > len(topics):
        return False
    return all(
        choice is None or topic in choice for topic, choice in zip(topics, wanted, strict=False)
    )


def _get_count(chain: EmbeddedChain, params: list[Any]) -> str:
    address, tag = _bytes(_param(params, 0), 20), _param(params, 1)
    if tag == "pending":
        return quantity(chain.pending_nonce(address))
    return quantity(chain.nonce(address, _number(chain, tag)))


def _get_balance(chain: EmbeddedChain, params: list[Any]) -> str:
    number = _number(chain, _param(params, 1))
    return quantity(chain.balance(_bytes(_param(params, 0), 20), number))


def _get_code(chain: EmbeddedChain, params: list[Any]) -> str:
    number = _number(chain, _param(params, 1))
    return text(chain.code(_bytes(_param(params, 0), 20), number))


def _get_storage(chain: EmbeddedChain, params: list[Any]) -> str:
    address, slot = _bytes(_param(params, 0), 20), _int(_param(params, 1))
    value = chain.storage(address, slot, _number(chain, _param(params, 2)))
    return text(value.to_bytes(32, "big"))


def _eth_call(chain: EmbeddedChain, params: list[Any]) -> str:
    return text(chain.call(_call(params), _number(chain, _param(params, 1))))


def _estimate(chain: EmbeddedChain, params: list[Any]) -> str:
    return quantity(chain.estimate(_call(params), _number(chain, _param(params, 1))))


def _fee_history(chain: EmbeddedChain, params: list[Any]) -> dict[str, Any]:
    first_param = _param(params, 0)
    count = first_param if isinstance(first_param, int) else _int(first_param)
    newest = _number(chain, _param(params, 1))
    percentiles = _param(params, 2) or []
    if not isinstance(percentiles, list) or len(percentiles) > LOG_FILTER_MAX:
        raise RpcError(_BAD_PARAMS, "expected a list of percentiles")
    oldest = max(0, newest - max(1, min(count, FEE_HISTORY_MAX)) + 1)
    headers = [chain.block(n).header for n in range(oldest, newest + 1)]
    fees = [quantity(header.base_fee_per_gas) for header in headers]
    return {
        "oldestBlock": quantity(oldest),
        "baseFeePerGas": [*fees, quantity(chain.base_fee)],
        "gasUsedRatio": [header.gas_used / header.gas_limit for header in headers],
        "reward": [[quantity(PRIORITY_FEE)] * len(percentiles) for _ in headers],
    }


METHODS: dict[str, Callable[[EmbeddedChain, list[Any]], Any]] = {
    "eth_accounts": lambda chain, params: [],
    "eth_blockNumber": lambda chain, params: quantity(chain.number),
    "eth_call": _eth_call,
    "eth_chainId": lambda chain, params: quantity(chain.chain_id),
    "eth_estimateGas": _estimate,
    "eth_feeHistory": _fee_history,
    "eth_gasPrice": lambda chain, params: quantity(chain.base_fee + PRIORITY_FEE),
    "eth_getBalance": _get_balance,
    "eth_getBlockByHash": _get_block_by_hash,
    "eth_getBlockByNumber": _get_block,
    "eth_getCode": _get_code,
    "eth_getLogs": _get_logs,
    "eth_getStorageAt": _get_storage,
    "eth_getTransactionByHash": _get_transaction,
    "eth_getTransactionCount": _get_count,
    "eth_getTransactionReceipt": _get_receipt,
    "eth_maxPriorityFeePerGas": lambda chain, params: quantity(PRIORITY_FEE),
    "eth_sendRawTransaction": lambda chain, params: text(chain.send(_bytes(_param(params, 0)))),
    "eth_syncing": lambda chain, params: False,
    "net_version": lambda chain, params: str(chain.chain_id),
    "web3_clientVersion": lambda chain, params: "fairlane-chain/1",
    "web3_sha3": lambda chain, params: text(keccak(_bytes(_param(params, 0)))),
}
