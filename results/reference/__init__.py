"""Released results, one tidy table a file; `pai-bench report --reference` and `pai-bench reproduce page` read them."""
