"""The embedded chain of devnet and tests: py-evm behind JSON-RPC."""
