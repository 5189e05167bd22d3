"""`fairlane chain`: a local Ethereum chain with Prague rules, for the devnet and for tests."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass

import click

MNEMONIC = "test test test test test test test test test test test junk"
"""Public test accounts, the same as other development chains have: never hold value with them."""
ACCOUNTS_MAX = 256
CHAIN_ID = 31_337
ETHER = 10**18


@dataclass(frozen=True, slots=True)
class Account:
    """One funded account, as hex with 0x."""

    address: str
    private_key: str


def derive_accounts(mnemonic: str, count: int) -> list[Account]:
    """Return the first accounts of a mnemonic (BIP-44, path m/44'/60'/0'/0/i).

    Errors: ValueError when the words are no mnemonic.
    """
    from eth_account import Account as EthAccount
    from eth_utils.exceptions import ValidationError

    EthAccount.enable_unaudited_hdwallet_features()
    try:
        keys = [
            EthAccount.from_mnemonic(mnemonic, account_path=f"m/44'/60'/0'/0/{i}")
            for i in range(count)
        ]
    except ValidationError as error:
        raise ValueError(str(error)) from None
    return [Account(key.address, "0x" + bytes(key.key).hex()) for key in keys]


@click.command("chain", short_help="Serve a local Ethereum chain for tests.")
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address.")
@click.option(
    "--port", default=8545, show_default=True, type=click.IntRange(0, 65_535), help="0: any free."
)
@click.option(
    "--accounts",
    default=10,
    show_default=True,
    type=click.IntRange(0, ACCOUNTS_MAX),
    help="How many accounts of the mnemonic to fund.",
)
@click.option("--mnemonic", default=MNEMONIC, help="Words that the accounts come from.")
@click.option(
    "--fund",
    "funded",
    multiple=True,
    metavar="ADDRESS",
    help="Fund this address too; may be repeated.",
)
@click.option("--balance", default=10_000, show_default=True, help="Ether of each account.")
@click.option("--chain-id", default=CHAIN_ID, show_default=True, type=click.IntRange(1))
@click.option("--block-time-s", default=1, show_default=True, type=click.IntRange(1, 3_600))
@click.option("--json", "as_json", is_flag=True, help="Say where it serves as one JSON line.")
def command(
    host: str,
    port: int,
    accounts: int,
    mnemonic: str,
    funded: tuple[str, ...],
    balance: int,
    chain_id: int,
    block_time_s: int,
    as_json: bool,
) -> None:
    """Serve a local Ethereum chain (Prague rules) over JSON-RPC until interrupted.

    It mines a block each period at wall-clock time, keeps everything in memory, and its newest
    block is final. The accounts are public: never hold value with them.
    """
    try:
        keys = derive_accounts(mnemonic, accounts)
        balances = {_address(key.address): balance * ETHER for key in keys}
        balances |= {_address(address): balance * ETHER for address in funded}
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    _serve(host, port, chain_id, balances, block_time_s, keys, as_json)


def _address(text: str) -> bytes:
    data = bytes.fromhex(text.removeprefix("0x"))
    if len(data) != 20:
        raise ValueError(f"{text} is not an address")
    return data


def _serve(
    host: str,
    port: int,
    chain_id: int,
    balances: dict[bytes, int],
    block_time_s: int,
    keys: list[Account],
    as_json: bool,
) -> None:
    import trio

    from ops.chain.embedded import EmbeddedChain
    from ops.chain.server import serve

    chain = EmbeddedChain(chain_id, balances, int(time.time()) - 1)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_signalled, nursery.cancel_scope)
            bound: int = await nursery.start(serve, chain, host, port, block_time_s)
            _announce(f"http://{host}:{bound}", chain_id, keys, as_json)

    failure: BaseException | None = None
    try:
        trio.run(main)
    except* (OSError, ValueError) as group:
        failure = _first(group)
    if failure is not None:  # Raised in `except*` it would come out as a group.
        raise click.ClickException(str(failure))


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


async def _until_signalled(scope: object) -> None:
    """Cancel everything on SIGTERM or Ctrl-C, so that the exit status is 0."""
    import trio

    assert isinstance(scope, trio.CancelScope)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            scope.cancel()
            return


def _announce(url: str, chain_id: int, keys: list[Account], as_json: bool) -> None:
    if as_json:
        listed = [{"address": key.address, "private_key": key.private_key} for key in keys]
        click.echo(json.dumps({"url": url, "chain_id": chain_id, "accounts": listed}))
        return
    click.echo(f"Chain {chain_id} at {url} (Prague rules, in memory, PUBLIC TEST KEYS):")
    for key in keys:
        click.echo(f"  {key.address}  {key.private_key}")
