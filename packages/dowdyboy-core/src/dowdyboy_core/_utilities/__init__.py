"""What the public utilities are made of."""
