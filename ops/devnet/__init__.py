"""A whole network on this machine: the chain, n nodes as processes, 50 traders, and the check.

`run` is the story from keys to the summary; the other modules are its means: `plan` (files),
`processes`, `prices`, `traders` (money in and out), `orders` and `load` (trading), `watch` (what
every node says happened), `report`. Nothing here is part of a real network; the dealt settlement
key least of all.
"""
