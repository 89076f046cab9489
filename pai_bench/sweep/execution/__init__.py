"""One attempt at a cell: claim it, resume it, run it, deliver its result."""
