"""Agreement on a fair order of commands: a pure state machine with no clock, I/O or randomness.

Leaf modules: `codec`, `digest`, `crypto`. Vocabulary: `messages` (what replicas say), `effects`
(inputs and effects of `step`), `committee` (who, quorums, parameters), `command` (the traders'
envelope). Edge: `admission`. Machine: `replica`, of `logkeeper` (order logs), `rounds`, `voting`,
`safety`, `committer`, `sequencer`, `fairorder`; `recovery` makes it again from a disk.
"""
