"""The embedded chain itself: py-evm under Prague rules, a transaction pool, and what was mined.

It is driven: `mine(timestamp)` makes one block of what the pool holds. Nothing here reads a
clock. py-evm's errors are mapped here: a caller sees `Rejected`, `Reverted` and `Unknown` only.
Source: ADR-0005.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from eth._utils.address import generate_contract_address
from eth.abc import BlockHeaderAPI, ComputationAPI, ReceiptAPI, SignedTransactionAPI
from eth.chains.base import MiningChain
from eth.constants import POST_MERGE_DIFFICULTY, POST_MERGE_MIX_HASH, POST_MERGE_NONCE
from eth.db.atomic import AtomicDB
from eth.db.backends.memory import MemoryDB
from eth.exceptions import PyEVMError, Revert
from eth.vm.forks import PragueVM
from eth.vm.spoof import SpoofTransaction
from eth_utils.exceptions import ValidationError
from rlp.exceptions import RLPException  # type: ignore[import-untyped]

from consensus.digest import keccak
from ops.chain import precompiles
from ops.chain.prune import prune

GAS_LIMIT = 30_000_000
CALL_GAS_MAX = 15_000_000
"""Gas of one call or estimate; it bounds how long it holds the chain up."""
POOL_MAX = 2_048
POOL_SENDER_MAX = 256
RAW_BYTES_MAX = 128 << 10
BLOCKS_KEPT_MAX = 8_192
"""Blocks, with their transactions and receipts, that can still be asked for."""
STATES_KEPT_MAX = 256
"""Newest blocks whose state can still be called or read, and the least that is kept."""
LOGS_KEPT_MAX = 131_072
BUMP_PERCENT = 10
"""By how much a replacement must raise both fees, as on other nodes."""
PRIORITY_FEE = 10**9

_BASE_GAS, _FLOOR_GAS = 21_000, 10
"""EIP-7623: a transaction pays at least the floor for each token of its data."""


class Rejected(ValueError):
    """The pool does not take a transaction; the text is what other nodes say."""


class Unknown(LookupError):
    """There is no such block, or it is no longer kept."""


class Reverted(Exception):
    """A call failed: `data` is what the contract gave back, empty when it ran out of gas."""

    def __init__(self, reason: str, data: bytes) -> None:
        super().__init__(reason)
        self.data = data


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A message to run without mining it; `to` None creates a contract."""

    sender: bytes = bytes(20)
    to: bytes | None = None
    data: bytes = b""
    value: int = 0
    gas: int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One log of a mined transaction."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes
    block: int
    block_hash: bytes
    transaction: bytes
    transaction_index: int
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mined:
    """One transaction with its receipt's facts."""

    hash: bytes
    transaction: SignedTransactionAPI
    sender: bytes
    block: int
    block_hash: bytes
    index: int
    ok: bool
    gas_used: int
    cumulative_gas: int
    gas_price: int
    created: bytes | None
    bloom: int
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """One block: py-evm's header and the hashes of its transactions."""

    header: BlockHeaderAPI
    transactions: tuple[bytes, ...]


class EmbeddedChain:
    """A chain of one miner; it never forks, so that its newest block is final."""

    def __init__(self, chain_id: int, balances: Mapping[bytes, int], timestamp: int) -> None:
        """`balances` (wei by address) exist from the genesis block, made at `timestamp` (s)."""
        precompiles.install()
        self.chain_id = chain_id
        fields = {"chain_id": chain_id, "vm_configuration": ((0, PragueVM),)}
        rules: Any = type("EmbeddedRules", (MiningChain,), fields)
        self._store: dict[bytes, bytes] = {}
        genesis = {
            "coinbase": bytes(20),
            "difficulty": POST_MERGE_DIFFICULTY,
            "extra_data": b"",
            "gas_limit": GAS_LIMIT,
            "mix_hash": POST_MERGE_MIX_HASH,
            "nonce": POST_MERGE_NONCE,
            "timestamp": timestamp,
        }
        state = {
            address: {"balance": wei, "nonce": 0, "code": b"", "storage": {}}
            for address, wei in balances.items()
        }
        self._chain: Any = rules.from_genesis(AtomicDB(MemoryDB(self._store)), genesis, state)
        head = self._chain.get_canonical_head()
        self._blocks: dict[int, Block] = {0: Block(head, ())}
        self._mined: dict[bytes, Mined] = {}
        self._events: list[Event] = []
        self._events_since = 0
        self._pool: dict[bytes, dict[int, SignedTransactionAPI]] = {}
        self._pool_hashes: dict[bytes, SignedTransactionAPI] = {}

    @property
    def head(self) -> Block:
        """The newest block."""
        return self._blocks[self.number]

    @property
    def number(self) -> int:
        """The newest block's number."""
        return next(reversed(self._blocks))

    @property
    def store_bytes(self) -> int:
        """Bytes of keys and values in the state's store."""
        return sum(len(key) + len(value) for key, value in self._store.items())

    # Reading

    def block(self, number: int) -> Block:
        """Return block `number`. Errors: Unknown."""
        try:
            return self._blocks[number]
        except KeyError:
            raise Unknown(f"block {number} not found") from None

    def block_by_hash(self, hash_: bytes) -> Block:
        """Return the block with this hash. Errors: Unknown."""
        for block in reversed(self._blocks.values()):
            if block.header.hash == hash_:
                return block
        raise Unknown("block not found")

    def mined(self, hash_: bytes) -> Mined | None:
        """Return the mined transaction with this hash, if it is still kept."""
        return self._mined.get(hash_)

    def waiting(self, hash_: bytes) -> SignedTransactionAPI | None:
        """Return the transaction with this hash that waits in the pool."""
        return self._pool_hashes.get(hash_)

    def events(self, first: int, last: int) -> Iterator[Event]:
        """Yield the events of blocks `first` to `last`, in order. Errors: Unknown."""
        if first < self._events_since:
            raise Unknown(f"logs before block {self._events_since} not found: pruned")
        low, high = 0, len(self._events)
        while low < high:
            middle = (low + high) // 2
            if self._events[middle].block < first:
                low = middle + 1
            else:
                high = middle
        for i in range(low, len(self._events)):
            if self._events[i].block > last:
                return
            yield self._events[i]

    def nonce(self, address: bytes, number: int) -> int:
        """Return how many transactions of `address` are mined. Errors: Unknown."""
        return int(self._state(number).get_nonce(address))

    def pending_nonce(self, address: bytes) -> int:
        """Return the nonce after what is mined and what waits without a gap."""
        nonce = self.nonce(address, self.number)
        waiting = self._pool.get(address, {})
        while nonce in waiting:
            nonce += 1
        return nonce

    def balance(self, address: bytes, number: int) -> int:
        """Return the wei of `address`. Errors: Unknown."""
        return int(self._state(number).get_balance(address))

    def code(self, address: bytes, number: int) -> bytes:
        """Return the code of `address`. Errors: Unknown."""
        return bytes(self._state(number).get_code(address))

    def storage(self, address: bytes, slot: int, number: int) -> int:
        """Return one storage slot of `address`. Errors: Unknown."""
        return int(self._state(number).get_storage(address, slot))

    @property
    def base_fee(self) -> int:
        """The base fee of the next block, in wei per gas."""
        return int(self._next_header(self.head.header.timestamp + 1).base_fee_per_gas)

    # Running

    def call(self, call: Call, number: int) -> bytes:
        """Return what `call` gives back on the state of `number`. Errors: Reverted, Unknown."""
        computation, _ = self._run(call, number, min(call.gas or CALL_GAS_MAX, CALL_GAS_MAX))
        return bytes(computation.output)

    def estimate(self, call: Call, number: int) -> int:
        """Return a gas limit with which `call` succeeds. Errors: Reverted, Unknown.

        What it used, refunds not counted, and what callers must keep back (EIP-150), tried out.
        """
        _, used = self._run(call, number, CALL_GAS_MAX)
        zeros = call.data.count(0)
        floor = _BASE_GAS + _FLOOR_GAS * (zeros + 4 * (len(call.data) - zeros))
        limit = max(used + used // 16 + 2_500, floor)
        while limit < CALL_GAS_MAX:
            try:
                self._run(call, number, limit)
            except Reverted:
                limit += limit // 4
            else:
                return limit
        return CALL_GAS_MAX

    def _run(self, call: Call, number: int, gas: int) -> tuple[ComputationAPI, int]:
        header = self.block(number).header
        vm = self._chain.get_vm(header)
        self._require_state(number)
        with vm.in_costless_state() as state:
            unsigned = vm.get_transaction_builder().new_unsigned_dynamic_fee_transaction(
                chain_id=self.chain_id,
                nonce=state.get_nonce(call.sender),
                max_priority_fee_per_gas=0,
                max_fee_per_gas=0,
                gas=gas,
                to=call.to or b"",
                value=call.value,
                data=call.data,
                access_list=(),
            )
            try:
                transaction = SpoofTransaction(unsigned, from_=call.sender)
                if gas < transaction.intrinsic_gas:
                    raise Reverted("intrinsic gas too low", b"")
                computation = state.apply_transaction(transaction)
            except ValidationError as error:
                raise Reverted(str(error), b"") from None
        if computation.is_error:
            raise _reverted(computation.error)
        return computation, gas - computation.get_gas_remaining()

    def _state(self, number: int) -> Any:
        self._require_state(number)
        return self._chain.get_vm(self.block(number).header).state

    def _require_state(self, number: int) -> None:
        if self.block(number).header.state_root not in self._store:
            raise Unknown(f"state of block {number} not found: pruned")

    # The pool

    def send(self, raw: bytes) -> bytes:
        """Take a signed transaction into the pool and return its hash. Errors: Rejected."""
        transaction = self._decode(raw)
        sender, hash_ = transaction.sender, transaction.hash
        if hash_ in self._pool_hashes or hash_ in self._mined:
            raise Rejected("already known")
        state = self._state(self.number)
        if transaction.nonce < state.get_nonce(sender):
            raise Rejected("nonce too low")
        if transaction.gas > GAS_LIMIT:
            raise Rejected("exceeds block gas limit")
        if transaction.gas < transaction.intrinsic_gas:
            raise Rejected("intrinsic gas too low")
        if state.get_balance(sender) < transaction.gas * transaction.max_fee_per_gas + (
            transaction.value
        ):
            raise Rejected("insufficient funds for gas * price + value")
        self._enqueue(sender, transaction)
        return bytes(hash_)

    def _decode(self, raw: bytes) -> SignedTransactionAPI:
        if not 0 < len(raw) <= RAW_BYTES_MAX or raw[0] == 3:
            raise Rejected("transaction type not supported or oversized data")
        try:
            transaction = PragueVM.get_transaction_builder().decode(raw)
            transaction.validate()
            if len(transaction.sender) != 20:
                raise ValueError("sender")
        except (PyEVMError, ValidationError, RLPException, ValueError, TypeError) as error:
            raise Rejected(f"invalid transaction: {error}") from None
        if transaction.chain_id != self.chain_id:
            raise Rejected("invalid chain id for signer")
        return transaction

    def _enqueue(self, sender: bytes, transaction: SignedTransactionAPI) -> None:
        waiting = self._pool.get(sender, {})
        old = waiting.get(transaction.nonce)
        if old is not None:
            for fee in ("max_fee_per_gas", "max_priority_fee_per_gas"):
                if getattr(transaction, fee) * 100 < getattr(old, fee) * (100 + BUMP_PERCENT):
                    raise Rejected("replacement transaction underpriced")
            del self._pool_hashes[old.hash]
        elif len(self._pool_hashes) >= POOL_MAX or len(waiting) >= POOL_SENDER_MAX:
            raise Rejected("txpool is full")
        self._pool.setdefault(sender, waiting)[transaction.nonce] = transaction
        self._pool_hashes[transaction.hash] = transaction

    def _drop(self, sender: bytes, nonce: int) -> None:
        del self._pool_hashes[self._pool[sender].pop(nonce).hash]
        if not self._pool[sender]:
            del self._pool[sender]

    # Mining

    def mine(self, timestamp: int) -> Block:
        """Make one block, of wall-clock time `timestamp` (s) or a second after the last."""
        header = self._next_header(max(timestamp, self.head.header.timestamp + 1))
        vm = self._chain.get_vm(header)
        receipts: list[ReceiptAPI] = []
        taken: list[SignedTransactionAPI] = []
        for sender in list(self._pool):
            nonce = vm.state.get_nonce(sender)
            for stale in [n for n in self._pool[sender] if n < nonce]:
                self._drop(sender, stale)
            while sender in self._pool and nonce in self._pool[sender]:
                transaction = self._pool[sender][nonce]
                if header.gas_used + transaction.gas > header.gas_limit:
                    break
                if transaction.max_fee_per_gas < header.base_fee_per_gas:
                    break
                self._drop(sender, nonce)
                try:
                    receipt, _ = vm.apply_transaction(header, transaction)
                except ValidationError:
                    break  # It cannot pay any more; those after it wait for a gap to close.
                header = vm.add_receipt_to_header(header, receipt)
                receipts.append(receipt)
                taken.append(transaction)
                nonce += 1
        filled = vm.set_block_transactions_and_withdrawals(
            vm.get_block(), header, tuple(taken), tuple(receipts)
        )
        block = vm.mine_block(filled).block
        self._chain.chaindb.persist_block(block)
        return self._keep(block.header, taken, receipts)

    def _next_header(self, timestamp: int) -> Any:
        parent = self.head.header
        return self._chain.create_header_from_parent(
            parent,
            timestamp=timestamp,
            gas_limit=parent.gas_limit,
            coinbase=bytes(20),
            mix_hash=keccak(parent.hash),
        )

    def _keep(
        self,
        header: BlockHeaderAPI,
        transactions: list[SignedTransactionAPI],
        receipts: list[ReceiptAPI],
    ) -> Block:
        gas_before, events_before = 0, 0
        for index, (transaction, receipt) in enumerate(zip(transactions, receipts, strict=True)):
            mined = _mined(header, index, transaction, receipt, gas_before, events_before)
            gas_before, events_before = receipt.gas_used, events_before + len(mined.events)
            self._mined[mined.hash] = mined
            self._events.extend(mined.events)
        block = Block(header, tuple(bytes(t.hash) for t in transactions))
        self._blocks[header.block_number] = block
        self._forget()
        return block

    def _forget(self) -> None:
        """Keep memory level: old blocks, logs and states go."""
        while len(self._blocks) > BLOCKS_KEPT_MAX:
            oldest = self._blocks.pop(next(iter(self._blocks)))
            for hash_ in oldest.transactions:
                self._mined.pop(hash_, None)
        if len(self._events) > LOGS_KEPT_MAX:
            cut = self._events[len(self._events) - LOGS_KEPT_MAX // 2].block
            self._events = [event for event in self._events if event.block >= cut]
            self._events_since = cut
        number = self.number
        if number % STATES_KEPT_MAX == 0 and number > STATES_KEPT_MAX:
            recent = range(number - STATES_KEPT_MAX, number + 1)
            prune(self._store, [self._blocks[n].header for n in recent])


def _mined(
    header: BlockHeaderAPI,
    index: int,
    transaction: SignedTransactionAPI,
    receipt: ReceiptAPI,
    gas_before: int,
    events_before: int,
) -> Mined:
    number, block_hash, hash_ = header.block_number, bytes(header.hash), bytes(transaction.hash)
    events = tuple(
        Event(
            address=bytes(log.address),
            topics=tuple(topic.to_bytes(32, "big") for topic in log.topics),
            data=bytes(log.data),
            block=number,
            block_hash=block_hash,
            transaction=hash_,
            transaction_index=index,
            index=events_before + i,
        )
        for i, log in enumerate(receipt.logs)
    )
    tip = min(
        transaction.max_fee_per_gas - header.base_fee_per_gas,
        transaction.max_priority_fee_per_gas,
    )
    return Mined(
        hash=hash_,
        transaction=transaction,
        sender=bytes(transaction.sender),
        block=number,
        block_hash=block_hash,
        index=index,
        ok=receipt.state_root == b"\x01",
        gas_used=receipt.gas_used - gas_before,
        cumulative_gas=receipt.gas_used,
        gas_price=header.base_fee_per_gas + tip,
        created=None if transaction.to else _created(transaction),
        bloom=receipt.bloom,
        events=events,
    )


def _created(transaction: SignedTransactionAPI) -> bytes:
    return bytes(generate_contract_address(transaction.sender, transaction.nonce))


def _reverted(error: Exception) -> Reverted:
    if isinstance(error, Revert):
        data = bytes(error.args[0]) if error.args else b""
        return Reverted("execution reverted", data)
    return Reverted(f"{type(error).__name__}: {error}"[:200], b"")
