"""`pai-bench speed`: measured time and memory of dense, masked, shrunk and 2:4 networks on the machine at hand."""
