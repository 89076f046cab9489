"""One cell, from its name to its result."""
