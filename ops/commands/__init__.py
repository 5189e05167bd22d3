"""One module a command; each exposes a `click.Command` named `command`, see `ops/cli.py`."""
