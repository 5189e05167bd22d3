"""Carries frames between the replicas of a fixed set, each named by its index.

`framing` and `inbox` are pure queues and bytes, `link` and `transport` need trio alone; only
`host` imports libp2p. Source: ARCHITECTURE.md, "Transport".
"""
