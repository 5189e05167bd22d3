"""Divergence bundles: what a node that disagreed with a quorum leaves, and its replay offline."""
