"""Runs every test as every `fairlane` process runs: with the recursion limit capped."""

from __future__ import annotations

from ops.recursion import cap_recursion

cap_recursion()
