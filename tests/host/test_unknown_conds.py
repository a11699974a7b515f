"""Model conds that the table lacks: refused before the first step, or handed on where they cannot
show a place."""

from __future__ import annotations

import comfy.conds
import pytest
import torch

from hires_fusion.sampling.denoiser import add_views
from hires_fusion.sampling.plan import LocalViews

from .halves import LATTICES
from .stub import StubModel, patcher, sample
from .test_conditioning import text


class Foreign(StubModel):
    """A pack's model class, with a cond of its own."""

    made: object = None

    def extra_conds(self, **kwargs):
        return super().extra_conds(**kwargs) | {"depth_map": self.made}


def foreign(made, native=None):
    model = patcher(text)
    model.model.__class__ = type("Foreign", (Foreign,), {"made": made, "__module__": native})
    return model


@pytest.mark.parametrize("plan", [{"local": LocalViews()}, {"dilated": LATTICES}])
@pytest.mark.parametrize(
    "made",
    [
        comfy.conds.CONDRegular(torch.zeros(1, 3, 32, 32)),
        comfy.conds.CONDRegular(torch.zeros(1, 77, 24)),
        comfy.conds.CONDRegular(torch.zeros(1, 32 * 32)),
        comfy.conds.CONDList([torch.zeros(1, 4, 8, 8)]),
        comfy.conds.CONDConstant({"boxes": torch.zeros(3, 4, 2)}),
        comfy.conds.CONDConstant(object()),
    ],
)
def test_an_unknown_cond_is_refused_before_the_first_step(made, plan):
    model = add_views(foreign(made, "x.custom_nodes.ComfyUI-Depth.nodes"), **plan)
    with pytest.raises(ValueError, match=r"'depth_map'.*ComfyUI-Depth.*native-size stage only"):
        sample(model, torch.zeros(1, 4, 32, 32))
    assert model.model.calls == []


@pytest.mark.parametrize(
    "made",
    [
        comfy.conds.CONDRegular(torch.zeros(1)),
        comfy.conds.CONDRegular(torch.zeros(1, 768)),
        comfy.conds.CONDRegular(torch.zeros(1, 1, 768)),
        comfy.conds.CONDCrossAttn(torch.zeros(1, 77, 24)),
        comfy.conds.CONDNoiseShape(torch.zeros(1, 3, 32, 32)),
        comfy.conds.CONDConstant({"strength": 0.5, "method": "offset", "on": True, "no": None}),
        comfy.conds.CONDConstant([1.0, 0.5]),
    ],
)
def test_an_unknown_cond_that_cannot_show_a_place_is_handed_on(made):
    plain = sample(foreign(made), torch.zeros(1, 4, 32, 32))
    viewed = sample(add_views(foreign(made), local=LocalViews()), torch.zeros(1, 4, 32, 32))
    assert (plain - viewed).abs().max() <= 1e-5 * plain.abs().max()


def test_a_canvas_of_one_view_refuses_nothing():
    made = comfy.conds.CONDRegular(torch.zeros(1, 3, 16, 16))
    model = add_views(foreign(made), local=LocalViews())
    assert sample(model, torch.zeros(1, 4, 16, 16)).isfinite().all()
