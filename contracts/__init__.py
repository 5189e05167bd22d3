"""The settlement contracts: Solidity sources, their compiled artifacts, and a loader for these.

`src/interfaces` says what each contract promises; `build.sh` compiles; `artifacts/` is what it
wrote. Users need no compiler, and this package imports no Ethereum library.
"""
