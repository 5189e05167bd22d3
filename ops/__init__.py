"""What an operator runs: the node, its store and gateway, the command line, the simulator, devnet."""
