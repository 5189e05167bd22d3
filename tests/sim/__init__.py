"""The production core under the simulator: scenarios, liars, mutations."""
