"""`pai-bench doctor`: checks of everything that a sweep needs, each with a remedy."""
