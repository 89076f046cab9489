"""Train and evaluate a network under masks, resumable at any step."""
