"""Stages as nodes: a chain is what the same rows of JSON are, and refuses what they refuse."""

from __future__ import annotations

import json
from dataclasses import asdict, fields

import pytest
import torch

from hires_fusion.fusion_ops.rows import MOST_ROWS
from hires_fusion.fusion_ops.stage import CHOICES, NAMES, Stage
from hires_fusion.fusion_ops.stages import chained
from hires_fusion.nodes.inputs import check
from hires_fusion.nodes.progressive import ProgressiveUpscale
from hires_fusion.nodes.stage import StageNode

from .expansion import Vae, expand, first
from .families import FAMILIES, tiny
from .graphs import load

INPUTS = {widget.id: widget for widget in StageNode.define_schema().inputs}
DEFAULTS = {name: w.default for name, w in INPUTS.items() if name not in ("before", "more")}


def stage(before=None, more="", **said):
    return StageNode.execute(before=before, more=more, **DEFAULTS | said).args[0]


def drawn(**changes):
    return expand(tiny(FAMILIES["SDXL"]), vae=Vae(), **changes)


def test_a_chain_is_what_its_rows_are():
    chain = stage(scale=1.5, cfg=3.0, structure=0.5)
    chain = stage(chain, '{"lfm": 0.25, "added_noise": 0.05}', scale=2.0, sigma=0.6, steps=4)
    rows = []
    for one in chain:
        skipped = ("start", "end") if one.sigma else ("sigma", "gamma", "end_sigma")
        row = {k: v for k, v in asdict(one).items() if v is not None and k not in skipped}
        rows.append(row)
    nodes = drawn(stage=chain)
    for preset in ("RepLDM", "DemoFusion"):
        assert nodes == drawn(stages=json.dumps(rows), preset=preset)
    assert first(nodes, "HRF_RenoiseSigmas")["steps"] == 4
    assert first(nodes, "HRF_AddedNoise")["std"] == 0.05


def test_the_workflows_stage_is_the_presets():
    """Of the workflow repldm_demo, whose pictures are the preset's."""
    said = load("repldm_demo")["222"]["inputs"]
    (one,) = StageNode.execute(**said).args[0]
    assert drawn(stage=(one,)) == drawn(preset="RepLDM")


def test_nothing_of_a_chain_is_the_presets():
    chain = stage(scale=2.0)
    assert drawn(stage=chain, preset="DemoFusion") == drawn(stage=chain, preset="FreCaS")
    (one,) = chain
    plain = {f.name: f.default for f in fields(Stage)}
    assert all(getattr(one, n) == plain[n] for n in NAMES if n not in DEFAULTS)


def test_what_is_left_at_its_default_is_the_composites():
    nodes = drawn(stage=stage(), steps=20, cfg=3.5)
    assert first(nodes, "HRF_InitRateSigmas")["num_resample_timesteps"] == 20
    assert first(nodes, "CFGGuider")["cfg"] == 3.5
    assert first(drawn(stage=stage(steps=7, cfg=1.0)), "CFGGuider")["cfg"] == 1


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        ({"more": '{"lift": "none"}'}, 'more has "lift", which is an input of its own'),
        ({"more": '{"gama": 1}'}, "stage 1 has no field 'gama'"),
        ({"more": '{"end_sigma": 0.2}'}, 'both "start" and "end_sigma"'),
        ({"more": '{"end": 0.5}', "start": 0.7}, "lower start, or raise end"),
        ({"more": "lfm 0.125"}, r'more is no JSON .* object such as \{"lfm": 0.125\}'),
        ({"more": "[1]"}, "more is no JSON object"),
        ({"more": "[" * 5000}, "more is nested too deep"),
        ({"more": '{"lift": ' + "[" * 500 + "]" * 500 + "}"}, "more is nested too deep"),
        (
            {"more": '{"lift": "' + "[" * 500 + '"}'},
            'more has "lift", which is an input of its own',
        ),
        ({"more": r'{"\"[[[[[[[[[[": 1}'}, "has no field"),
        ({"more": '{"lfm": ' + "9" * 5000 + "}"}, "a number of 5000"),
        ({"more": "x" * 50_000}, "more has 50000 characters"),
        ({"before": (Stage(scale=3),), "scale": 2.0}, "stage 2 is smaller"),
        ({"before": (Stage(scale=2),) * MOST_ROWS}, "chain at most 15"),
        ({"before": ()}, "before is a tuple: connect it to an output of the type HRF_STAGE"),
        ({"before": Stage(scale=2)}, "such as that of Stage"),
        ({"scale": 0.5}, "scale is 0.5"),
        ({"lift": "bicubic"}, "did you mean"),
    ],
)
def test_what_is_wrong_is_refused_with_the_fix(said, fix):
    with pytest.raises(ValueError, match=fix):
        stage(**said)


def test_a_text_is_refused_when_it_is_queued():
    with pytest.raises(ValueError, match="no field 'gama'"):
        StageNode.validate_inputs(more='{"gama": 1}')
    assert StageNode.validate_inputs(more='{"lfm": 0.1}', scale=2.0) is True


@pytest.mark.parametrize(
    ("changes", "fix"),
    [
        ({"stages": '[{"scale": 2}]'}, "both stage and stages are given"),
        ({"init_rates": "0.8"}, "both stages and init_rates"),
        ({"vae": None}, "stage 1 has a pixel lift: connect a VAE"),
    ],
)
def test_a_chain_and_other_wishes(changes, fix):
    with pytest.raises(ValueError, match=fix):
        drawn(stage=stage(), **changes) if "vae" not in changes else expand(stage=stage())


def test_the_composite_takes_a_chain_and_nothing_else():
    schema = ProgressiveUpscale.define_schema()
    assert check(schema, {"stage": [stage()]})["stage"] == [stage()]
    with pytest.raises(ValueError, match="type HRF_STAGE, such as that of Stage"):
        check(schema, {"stage": ["[]"]})


def test_the_same_size_again_goes_through_no_vae():
    chain = stage(stage(scale=2.0), scale=2.0, start=0.9)
    nodes = drawn(stage=chain)
    assert [kind for kind, _ in nodes.values()].count("HRF_UpsampleLatent") == 1
    sharp = stage(stage(scale=2.0), scale=2.0, start=0.9, unsharp=1.0)
    nodes = drawn(stage=sharp)
    assert [kind for kind, _ in nodes.values()].count("HRF_UpsampleLatent") == 2


def test_choices_of_the_node_are_those_of_a_stage():
    for name in CHOICES.keys() & INPUTS.keys():
        assert tuple(INPUTS[name].options) == tuple(CHOICES[name])


def test_an_empty_picture_is_refused_where_something_follows_it():
    for said in ({"structure": 0.5}, {"skip_residual": True}):
        chain = stage(lift="latent bicubic", **said)
        with pytest.raises(ValueError, match="needs a finished picture to follow"):
            drawn(stage=chain, samples=torch.zeros(1, 4, 32, 24))


def test_more_than_the_widgets_can_say():
    (one,) = chained((), {"scale": 2.0}, '{"cosine_scale_1": 2, "structure_low_pass": "haar"}')
    assert (one.cosine_scale_1, one.structure_low_pass) == (2, "haar")
