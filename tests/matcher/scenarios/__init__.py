"""Market scenarios in text files: see docs/guides/market-scenarios.md."""
