"""Level-triggered reconciliation: load what is, plan (pure), apply what differs, tell it in status."""
