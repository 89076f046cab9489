"""Analysis of results: tables, figures and statistics. Never imports torch."""
