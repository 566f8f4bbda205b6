"""The harnesses of the frameworks that dowdyboy itself supports."""
