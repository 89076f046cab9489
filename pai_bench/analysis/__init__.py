"""From results to tables and figures. Never imports torch."""
