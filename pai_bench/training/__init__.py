"""Train and evaluate a network under fixed masks, resumable at any step."""
