"""The checks. Each is a plain function that takes a harness and is marked with the clauses it is about."""
