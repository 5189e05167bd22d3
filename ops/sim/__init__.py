"""The simulator: the production core under virtual time, a hostile network and lying replicas.

One seed decides everything, so one command line repeats a run to the byte. `world` puts the parts
together: `loop` (virtual time), `network`, `disk`, `host` (one replica with its crashes), `liars`
(Byzantine behaviours), `clients`, and what is held against the run: `invariants` and `fairness`.
`plan` is a run's description, `scenarios` names common ones. docs/guides/simulator.md is the guide.
"""
