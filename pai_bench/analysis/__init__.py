"""From results to statistics, tables and figures; never imports torch."""
