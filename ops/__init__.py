"""What an operator runs: node, store, gateway, command line, simulator, devnet."""
