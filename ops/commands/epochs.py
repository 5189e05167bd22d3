"""`fairlane epochs`: simulated networks whose committee changes while they trade."""

from __future__ import annotations

import json

import click

from ops.sim.epochs import EpochWorld, growing, turbulent


@click.command("epochs", short_help="Simulate changes of the committee.")
@click.option("--seed", type=int, default=1, show_default=True, help="Decides everything.")
@click.option(
    "--seeds", type=click.IntRange(1, 1_000_000), default=1, show_default=True, help="Run so many."
)
@click.option("--quiet-network", is_flag=True, help="No loss, no crashes, no old frames.")
@click.option("--json", "as_json", is_flag=True, help="One object a run.")
@click.pass_context
def command(ctx: click.Context, seed: int, seeds: int, quiet_network: bool, as_json: bool) -> None:
    """Grow a network from four members to five and seven, and shrink it to five, under load.

    Machines crash between any two effects, frames get lost, and old ones come again, from epochs
    that are over too. Exits with 0 only if nothing was lost, nothing happened twice, all nodes
    agree on every block, state and beginning of an epoch, and all came through every change.
    """
    for each in range(seed, seed + seeds):
        world = EpochWorld(growing(each) if quiet_network else turbulent(each))
        world.run()
        held = world.ledger.is_clean
        cores = [node.core for node in world.nodes if node.core is not None]
        figures = {
            "seed": each,
            "held": held,
            "epochs": max(core.epoch for core in cores),
            "height": max(core.replica.height for core in cores),
            "submitted": len(world.orders),
            "executed": len(world.emitted),
            "steps": world.steps,
            "violations": [str(violation) for violation in world.ledger.violations],
            "trace": world.trace.hexdigest(),
        }
        if as_json:
            click.echo(json.dumps(figures))
        else:
            click.echo(
                f"seed {each}: {'held' if held else 'BROKEN'}, {figures['epochs']} epochs, height "
                f"{figures['height']}, {figures['executed']} of {figures['submitted']} commands"
            )
        if not held:
            for violation in world.ledger.violations[:5]:
                click.echo(f"  {violation}", err=True)
            flag = " --quiet-network" if quiet_network else ""
            click.echo(f"repeat with: fairlane epochs --seed {each}{flag}", err=True)
            ctx.exit(1)
