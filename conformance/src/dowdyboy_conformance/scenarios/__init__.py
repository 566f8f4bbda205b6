"""What several processes do together, for checks to look at."""
