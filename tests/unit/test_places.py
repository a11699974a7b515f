"""From attention to masks: by hand."""

from __future__ import annotations

import pytest
import torch

from hires_fusion.fusion_ops.places import is_placed, mean_map, place_mask, word_share


def test_the_share_of_a_word_by_hand():
    # Two places, three tokens, two heads of one channel. Logits are q k, as the width is 1.
    q = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    k = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    e = torch.e
    first = (e / (2 + e), 1 / 3)  # head 0 of place 0 sees token 1, head 1 sees all alike
    second = (1 / 3, 1 / (2 + e**2))
    wanted = torch.tensor([[sum(first) / 2, sum(second) / 2]])
    assert torch.allclose(word_share(q, k, 2, [1]), wanted, atol=1e-6)
    assert torch.allclose(word_share(q, k, 2, [0, 1, 2]), torch.ones(1, 2), atol=1e-6)


def test_the_mask_by_hand():
    share = torch.tensor([[[0.5, 0.75], [1.0, 1.75]]])  # mean 1
    assert place_mask(share).tolist() == [[[0.0, 0.0], [0.5, 1.0]]]
    assert place_mask(8 * share).equal(place_mask(share)), "only relative to the mean"
    assert place_mask(share, 0.75, 1.0).tolist() == [[[0.25, 0.5], [0.75, 1.0]]]
    assert place_mask(share, 0.75, 0.0).tolist() == [[[0.0, 1.0], [1.0, 1.0]]]
    assert place_mask(torch.zeros(1, 2, 2)).isfinite().all()


def test_maps_of_several_sizes_are_averaged():
    maps = [torch.full((2, 3, 5), 1.0), torch.full((2, 6, 9), 3.0)]
    assert mean_map(maps, (4, 7)).equal(torch.full((2, 4, 7), 2.0))


@pytest.mark.parametrize(
    ("rows", "columns", "placed"),
    [(4, 4, True), (16, 4, True), (16, 6, False), (16, 16, False), (0, 0, False)],
)
def test_what_has_a_place(rows, columns, placed):
    share = torch.zeros(1, 16, 16)
    share[:, :rows, :columns] = 0.3
    assert is_placed(share).tolist() == [placed]


def test_a_little_more_in_a_corner_is_no_place():
    share = torch.ones(1, 16, 16)
    share[:, :4, :4] = 1.5
    assert is_placed(share).tolist() == [False]
    share[:, :4, :4] = 4
    assert is_placed(share).tolist() == [True]


def test_faint_attention_elsewhere_hides_no_subject():
    """A place that saturates the mask, and many that a mask of r > 1 would hold as well."""
    share = torch.full((1, 16, 16), 0.8)
    share[:, :, 8:] = 1.2
    share[:, 4:8, 4:8] = 6
    assert is_placed(share).tolist() == [True]


def test_each_picture_of_a_batch_by_itself():
    shares = torch.stack([torch.ones(9, 13), torch.zeros(9, 13)])
    shares[1, 2:4, 5:8] = 0.6
    assert is_placed(shares).tolist() == [False, True]
