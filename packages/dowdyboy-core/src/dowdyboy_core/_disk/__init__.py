"""How a run lies on the disk."""
