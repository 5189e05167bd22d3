"""The contracts on py-evm under Prague rules, with a committee that holds real threshold shares."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from eth_tester import EthereumTester, PyEVMBackend
from eth_tester.exceptions import TransactionFailed
from py_arkworks_bls12381 import G1Point, G2Point, Scalar
from web3 import EthereumTesterProvider, Web3
from web3.logs import DISCARD

from consensus.committee import quorum
from consensus.crypto import GROUP_ORDER, bls_combine, bls_sign
from consensus.digest import domain_separator, keccak, signed_word, typed_data_hash, word
from contracts.loader import artifact
from ops.chain.precompiles import encode_point, install

USDC = 10**6
MINIMUM = USDC
INTERVAL_MS = 2_000
EMPTY_LEAF = keccak(b"fairlane.empty.leaf")
WITHDRAWAL = keccak(b"Withdrawal(uint64 index,address recipient,uint256 amount)")
CHECKPOINT = keccak(
    b"Checkpoint(uint64 epoch,uint64 number,uint64 height,uint64 blockTimeMs,bytes32 stateRoot,"
    b"bytes32 snapshotRoot,bytes32 withdrawalsRoot,uint256 withdrawnTotal,uint64 inboxCount,"
    b"bytes32 inboxHash,int256 netTotal,uint256 positiveTotal,uint64 dataSince,bytes32 dataHash,"
    b"bytes32 nextEpochHash)"
)


@dataclass(frozen=True)
class Checkpoint:
    """The contract's struct, field by field."""

    epoch: int
    number: int
    height: int
    time_ms: int
    state_root: bytes
    snapshot_root: bytes
    withdrawals_root: bytes
    withdrawn_total: int
    inbox_count: int
    inbox_hash: bytes
    net_total: int
    positive_total: int
    data_since: int = 0
    data_hash: bytes = keccak(b"")
    next_epoch_hash: bytes = bytes(32)

    def fields(self) -> tuple[int | bytes, ...]:
        """Return the ABI's tuple."""
        return tuple(vars(self).values())

    def digest(self, separator: bytes) -> bytes:
        """Return what is signed, computed from EIP-712's text."""
        words = [
            signed_word(value) if name == "net_total" else word(value)
            for name, value in vars(self).items()
        ]
        return typed_data_hash(separator, keccak(CHECKPOINT + b"".join(words)))


class Group:
    """Five holders of a key that any four of them can use; secrets from a seed, for tests only."""

    n = 5
    q = quorum(5)

    def __init__(self, seed: bytes) -> None:
        self._coefficients = [
            int.from_bytes(sha256(seed + bytes((i,))).digest(), "big") % GROUP_ORDER
            for i in range(self.q)
        ]
        self.key = encode_point(G2Point() * Scalar(self._coefficients[0]))

    def share(self, replica: int) -> int:
        """Return the secret of `replica`: the polynomial's value at its index + 1."""
        x = replica + 1
        value = 0
        for coefficient in reversed(self._coefficients):
            value = (value * x + coefficient) % GROUP_ORDER
        return value

    def sign(self, digest: bytes, replicas: Sequence[int] = (0, 1, 2, 3)) -> bytes:
        """Return what these replicas' shares interpolate to, as the contract wants it."""
        shares = [(replica + 1, bls_sign(self.share(replica), digest)) for replica in replicas]
        return uncompressed(bls_combine(shares))


def uncompressed(signature: bytes) -> bytes:
    """Return EIP-2537's 128 bytes for 48 compressed ones."""
    return encode_point(G1Point.from_compressed_bytes(signature))


class Tree:
    """A tree of depth 32 as a map of its non-empty nodes, written from the definition."""

    def __init__(self, leaves: dict[int, bytes]) -> None:
        self._levels = [dict(leaves)]
        self._empty = [EMPTY_LEAF]
        for _ in range(32):
            empty, below = self._empty[-1], self._levels[-1]
            self._levels.append(
                {
                    i: node(below.get(2 * i, empty), below.get(2 * i + 1, empty))
                    for i in {j // 2 for j in below}
                }
            )
            self._empty.append(node(empty, empty))

    @property
    def root(self) -> bytes:
        return self._levels[32].get(0, self._empty[32])

    def proof(self, index: int) -> list[bytes]:
        """Return the 32 siblings, lowest first."""
        return [self._levels[k].get((index >> k) ^ 1, self._empty[k]) for k in range(32)]


def node(left: bytes, right: bytes) -> bytes:
    """Return an inner node."""
    return keccak(b"\x01" + left + right)


def withdrawal_leaf(index: int, recipient: str, amount: int) -> bytes:
    """Return a withdrawal's leaf."""
    return keccak(
        b"\x00" + WITHDRAWAL + word(index) + word(bytes.fromhex(recipient[2:])) + word(amount)
    )


@dataclass
class World:
    """A chain with the contracts deployed, and what the network would know of them."""

    dispute_delay: int = 0
    inclusion_delay: int = 3_600
    group: Group = field(default_factory=lambda: Group(b"tests"))
    key: bytes | None = None
    withdrawals: dict[int, tuple[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        install()
        self.tester = EthereumTester(PyEVMBackend())
        self.w3 = Web3(EthereumTesterProvider(self.tester))
        self.accounts: list[str] = [str(account) for account in self.w3.eth.accounts]
        self.token = self.deploy("TestToken")
        self.vault = self.deploy_vault(self.key or self.group.key)
        self.inbox = self.at("Inbox", self.vault.functions.inbox().call())
        self.checkpoints = self.at("Checkpoints", self.vault.functions.checkpoints().call())
        self.separator = bytes(self.checkpoints.functions.domainSeparator().call())
        for account in self.accounts[:3]:
            self.transact(self.token.functions.mint(account, 10**12 * USDC))
            approve = self.token.functions.approve(self.vault.address, 2**256 - 1)
            self.transact(approve, sender=account)

    def deploy(self, name: str, *arguments: object) -> Any:
        code = artifact(name)
        contract = self.w3.eth.contract(abi=code.abi, bytecode=code.bytecode)
        receipt = self.w3.eth.wait_for_transaction_receipt(
            contract.constructor(*arguments).transact()
        )
        address = receipt["contractAddress"]
        assert address is not None
        return self.at(name, address)

    def deploy_vault(self, key: bytes) -> Any:
        config = (INTERVAL_MS, self.inclusion_delay, self.dispute_delay, key)
        return self.deploy("Vault", self.token.address, MINIMUM, config)

    def at(self, name: str, address: str) -> Any:
        return self.w3.eth.contract(
            address=Web3.to_checksum_address(address), abi=artifact(name).abi
        )

    def transact(self, function: Any, sender: str | None = None) -> Any:
        """Send a call and return its receipt."""
        options = {"from": sender or self.accounts[0]}
        receipt = self.w3.eth.wait_for_transaction_receipt(function.transact(options))
        assert receipt["status"] == 1
        return receipt

    def deposit(self, amount: int = 100 * USDC, wallet: str | None = None, sub: int = 0) -> Any:
        wallet = wallet or self.accounts[1]
        return self.transact(self.vault.functions.deposit(amount, wallet, sub))

    @property
    def now(self) -> int:
        return int(self.w3.eth.get_block("latest")["timestamp"])

    def travel(self, seconds: int) -> None:
        self.tester.time_travel(self.now + seconds)
        self.tester.mine_block()

    @property
    def tree(self) -> Tree:
        return Tree({i: withdrawal_leaf(i, *paid) for i, paid in self.withdrawals.items()})

    def next(self, **changes: Any) -> Checkpoint:
        """Return the checkpoint that an honest network would sign now, with `changes`.

        Changed times and counts bring their consequences, unless these are changed too.
        """
        time_ms = changes.get("time_ms", self._next_time_ms())
        count = changes.get("inbox_count", self.inbox.functions.count().call())
        chained, deposited, _ = self.inbox.functions.entry(count).call()
        withdrawn = changes.get("withdrawn_total", sum(a for _, a in self.withdrawals.values()))
        honest = Checkpoint(
            epoch=1,
            number=time_ms // INTERVAL_MS,
            height=self.checkpoints.functions.acceptedHeight().call() + 1,
            time_ms=time_ms,
            state_root=keccak(b"state"),
            snapshot_root=keccak(b"snapshot"),
            withdrawals_root=self.tree.root,
            withdrawn_total=withdrawn,
            inbox_count=count,
            inbox_hash=bytes(chained),
            net_total=deposited - withdrawn,
            positive_total=max(0, deposited - withdrawn),
        )
        return replace(honest, **changes)

    def _next_time_ms(self) -> int:
        number = self.checkpoints.functions.acceptedNumber().call()
        return max(self.now * 1_000, (int(number) + 1) * INTERVAL_MS)

    def signed(self, checkpoint: Checkpoint) -> bytes:
        return self.group.sign(checkpoint.digest(self.separator))

    def submission(self, checkpoint: Checkpoint, signature: bytes | None = None) -> Any:
        if signature is None:
            signature = self.signed(checkpoint)
        return self.checkpoints.functions.submit(checkpoint.fields(), signature)

    def submit(self, **changes: Any) -> Checkpoint:
        checkpoint = self.next(**changes)
        self.transact(self.submission(checkpoint))
        return checkpoint

    def claim(self, number: int, index: int, /, **changes: Any) -> Any:
        recipient, amount = self.withdrawals.get(index, (self.accounts[0], 0))
        arguments = {
            "number": number,
            "index": index,
            "recipient": recipient,
            "amount": amount,
            "proof": self.tree.proof(index),
        }
        return self.vault.functions.claim(*(arguments | changes).values())

    def event(self, contract: Any, name: str, receipt: Any) -> dict[str, Any]:
        """Return the arguments of the one event `name` of `contract` in `receipt`."""
        (found,) = contract.events[name]().process_receipt(receipt, errors=DISCARD)
        return dict(found["args"])

    def refusal(self, function: Any) -> str:
        """Return the name of the error with which a call reverts. Errors: it does not."""
        try:
            function.call({"from": self.accounts[0]})
        except TransactionFailed as failure:
            data = ast.literal_eval(str(failure.args[0]).removeprefix("execution reverted: "))
            return error_name(data)
        raise AssertionError("the call was not refused")


def error_name(data: bytes) -> str:
    """Return which of the contracts' errors the revert data is."""
    names = {
        keccak(f"{item['name']}({','.join(i['type'] for i in item['inputs'])})".encode())[:4]: str(
            item["name"]
        )
        for name in ("Vault", "Inbox", "Checkpoints", "TestToken")
        for item in artifact(name).abi
        if item["type"] == "error"
    }
    return names[data[:4]]


def other_chain(world: World) -> bytes:
    """Return the domain separator that the same contract would have on the next chain id."""
    address = bytes.fromhex(world.checkpoints.address[2:])
    return domain_separator("Fairlane", "1", world.w3.eth.chain_id + 1, address)
