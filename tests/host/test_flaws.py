"""What is wrong inside a value of the right type is said by the input's name, before it is used."""

from __future__ import annotations

import pytest
import torch
from comfy_api.latest import io

from hires_fusion.nodes import inputs
from hires_fusion.sampling.lift import match_statistics

NAN, INF = float("nan"), float("inf")
GOOD = torch.ones(1, 4, 8, 8)


def said(kind, value):
    with pytest.raises(ValueError) as caught:
        inputs.checked_value(io.Custom(kind).Input("it"), value)
    message = str(caught.value)
    assert message.startswith("it: ") and len(message) < 250
    return message


@pytest.mark.parametrize(
    ("samples", "why"),
    [
        (torch.ones(1, 4, 8, 8, dtype=torch.int64), "of int64"),
        (torch.ones(1, 4, 8, 8, dtype=torch.bool), "of bool"),
        (torch.ones(1, 4, 8, 8, dtype=torch.complex64), "of complex64"),
        (torch.ones(0, 4, 8, 8), "empty, 0 x 4 x 8 x 8"),
        (torch.ones(1, 4, 0, 8), "empty"),
        (torch.full((1, 4, 8, 8), NAN), "NaN"),
        (torch.full((1, 4, 1, 8, 8), -INF, dtype=torch.float16), "NaN"),
    ],
)
def test_latents(samples, why):
    assert why in said("LATENT", {"samples": samples})


@pytest.mark.parametrize(
    ("mask", "why"),
    [
        ("x", "Set Latent Noise Mask"),
        (torch.ones(8), "Set Latent Noise Mask"),
        (torch.ones(0, 8, 8), "empty"),
        (torch.full((1, 8, 8), NAN), "NaN"),
    ],
)
def test_noise_masks(mask, why):
    message = said("LATENT", {"samples": GOOD, "noise_mask": mask})
    assert "noise_mask" in message and why in message


@pytest.mark.parametrize("mask", [torch.ones(8, 8), torch.ones(3, 1, 9, 7) > 0, None])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_what_the_host_makes_passes(mask, dtype):
    latent = {"samples": GOOD.to(dtype)} | ({} if mask is None else {"noise_mask": mask})
    assert inputs.checked_value(io.Latent.Input("it"), latent) is latent


@pytest.mark.parametrize("kind", ["IMAGE", "MASK"])
def test_pictures(kind):
    shape = (1, 8, 8, 3) if kind == "IMAGE" else (1, 8, 8)
    assert "NaN" in said(kind, torch.full(shape, NAN))
    assert "empty" in said(kind, torch.ones(0, *shape[1:]))
    assert "empty" in said(kind, torch.ones(shape[0], 0, *shape[2:]))


@pytest.mark.parametrize(("value", "why"), [(NAN, "NaN"), (INF, "NaN"), (-1.0, "falls to -1")])
def test_sigmas(value, why):
    assert why in said("SIGMAS", torch.tensor([value, 0.0]))
    assert len(inputs.checked_value(io.Sigmas.Input("it"), torch.zeros(0))) == 0


def test_a_conditioning_holds_prompts():
    assert "no prompt" in said("CONDITIONING", [])
    for options in (None, "x", [1]):
        with pytest.raises(ValueError, match="of the type CONDITIONING"):
            inputs.checked_value(io.Conditioning.Input("it"), [[torch.ones(1, 1, 1), options]])


@pytest.mark.parametrize(("outside", "inside"), [(1.3, 1.0), (-0.2, 0.0)])
def test_masks_that_overshoot_change_no_more_than_whole_cells(outside, inside):
    """Interpolated masks leave 0..1 by a little."""
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(1, 1, 8, 8)

    def changed(left):
        mask[..., :4] = left
        latent = {"samples": x, "noise_mask": mask.clone()}
        return match_statistics(latent, {"samples": 2 * x + 1})["samples"]

    assert torch.equal(changed(outside), changed(inside))
