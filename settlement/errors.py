"""What can go wrong with the chain, as everything above the RPC client sees it."""

from __future__ import annotations


class ChainError(Exception):
    """Anything that the chain or the way to it did to us."""


class ChainUnavailable(ChainError):
    """The endpoint did not answer, or not with what a working one would; try again later."""


class RpcRefused(ChainUnavailable):
    """The endpoint answered with an error of its own, such as "nonce too low"."""


class ChainInconsistent(ChainUnavailable):
    """Two answers of the endpoint contradict each other, or what it said before."""


class TransactionReverted(ChainError):
    """A contract refused; `reason` is its error with arguments, such as `NotFinal(7, 12)`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class WrongChain(ChainError):
    """The endpoint serves another chain than the network's; nothing may be sent to it."""

    def __init__(self, expected: int, actual: int) -> None:
        super().__init__(f"chain id is {actual}, the network's is {expected}")
        self.expected = expected
        self.actual = actual
