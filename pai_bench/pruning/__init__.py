"""From scores to masks, and masks on models."""
