"""Agreement on a fair order of commands: a pure state machine with no clock, I/O or randomness.

Leaf modules: `codec`, `digest`, `crypto`. Vocabulary: `messages` (what replicas say), `effects`
(inputs and effects of `step`), `committee` (who, quorums, parameters), `command` (the traders'
envelope). Machine: `orderlog`, `chain`, `safety`, `fairorder`, `sequencer`, `replica`.
"""
