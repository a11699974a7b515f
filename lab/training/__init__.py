"""Makes what the project ships: the demo model, its fusers, the counter."""
