"""Cost of scoring in passes, images and labels."""

from __future__ import annotations

from pai_bench.experiment.cost import Passes
from pai_bench.scoring import registry
from pai_bench.scoring.meter import Meter


def passes(meter: Meter, method: str, warmup: int, different: int) -> Passes | None:
    """Return the cost of a scoring by a method, None for masks from a file.

    Images and labels count where they may decide the masks, as the facts about the method state: SynFlow draws a batch
    for its shape alone, and a method without data sees images in the passes that settle BatchNorm (`warmup`). A method
    without facts may see labels. `different`: number of different images in the batches, which repeat them when the
    data set is too small for all rounds.
    """
    sees = registry.sees(method)
    if sees == "unknown":
        return None
    images = min(meter.images, different) if sees != "nothing" or warmup else 0
    labels = min(meter.labels, different) if sees in ("labels", "training") else 0
    return Passes(meter.forward, meter.backward, images, labels)


def with_training(scoring: Passes | None, steps: int, batch_size: int, images: int) -> Passes:
    """Return the cost of a scoring and of so many training steps over `images` images with labels.

    `scoring` is None for methods that begin with the dense network.
    """
    before, seen = scoring or Passes(0, 0, 0, 0), min(steps * batch_size, images)
    # The scoring images belong to the training set.
    return Passes(before.forward + steps, before.backward + steps, max(before.images, seen), max(before.labels, seen))


def scoring_counts(found: Passes | None) -> dict[str, float | None]:
    """Return the costs of a result by name."""
    names = {"forward": "score_forward_passes", "backward": "score_backward_passes"}
    names |= {"images": "score_images", "labels": "score_labels"}
    return {name: None if found is None else getattr(found, attribute) for attribute, name in names.items()}
