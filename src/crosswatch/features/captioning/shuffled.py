"""Sentences of other times: a control. A model that reads them as well as the right ones has
learned nothing from them."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from crosswatch.features.captioning.captions import Caption


def shuffled(
    captions: Mapping[str, Sequence[Caption]], *, seed: int
) -> dict[str, tuple[Caption, ...]]:
    """Each row of each batch with the sentence, explanation and score of another row.

    The sentences move over all batches at once: where a batch is one clip, its own sentences in
    another order would say the same of it. Times and frames stay. One row alone keeps its sentence.
    """
    places = [(batch, row) for batch in sorted(captions) for row in range(len(captions[batch]))]
    cycle = np.random.default_rng(seed).permutation(len(places)).tolist()
    moved = {batch: list(of_batch) for batch, of_batch in captions.items()}
    # Each takes what the next on one cycle through all has, so that none keeps its own.
    for here, there in zip(cycle, cycle[1:] + cycle[:1], strict=True):
        batch, row = places[here]
        other, at = places[there]
        own = captions[batch][row]
        moved[batch][row] = dataclasses.replace(
            captions[other][at], time_s=own.time_s, until_s=own.until_s, frame=own.frame
        )
    return {batch: tuple(of_batch) for batch, of_batch in moved.items()}
