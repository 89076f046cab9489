"""From a request to checked runs, their plan, and its cost."""
