"""Settlement: checkpoints, threshold shares, Merkle proofs, and the door to the contracts.

Pure: `checkpoint`, `shares`, `insecure`, `dealer`, `proofs`, `inbox`. With I/O, on trio:
`ethereum` and `transactions` (one RPC endpoint, one sending account), `watcher` (chain to
network), `submitter` (network to chain), `deploy` (the contracts of a fresh network).
"""
