"""`pai-bench doctor`: what a sweep needs, tried one thing at a time, each with a remedy."""
