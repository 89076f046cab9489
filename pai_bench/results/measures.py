"""Names of the measures of masked networks that a result has."""

from __future__ import annotations

SHARE_OF = {
    "disconnected_units": "units",
    "one_sided_units": "units",
    "sink_nodes": "nodes",
    "source_nodes": "nodes",
    "disconnected_nodes": "nodes",
    "cut_edges": "edges",
    "removable_channels": "channels",
    "removable_channels_folded": "channels",
}
"""Counts, and the name of the number that each is a part of."""

MEASURES = ("untrained_accuracy", *dict.fromkeys(name for pair in SHARE_OF.items() for name in reversed(pair)))
"""Names of `Result.measures`: totals before their parts."""

SCORING = ("score_forward_passes", "score_backward_passes", "score_images", "score_labels")
"""Costs of scoring in passes, images and labels, among `Result.costs`."""
