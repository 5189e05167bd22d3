"""Pure: instruments, books, margin, liquidation, ledger and engine. Integers only, no I/O."""
