"""Settlement: checkpoints, threshold shares, Merkle proofs, and the door to the contracts.

Pure: `checkpoint`, `shares`, `insecure`, `dealer`, `proofs`. With I/O, on trio: `rpc`,
`transactions` and `ethereum` (an endpoint, a sending account, the contracts), `watcher` (chain
to network), `submitter` (network to chain), `deploy` (the contracts of a fresh network).
"""
