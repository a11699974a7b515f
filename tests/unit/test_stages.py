"""The stages that a user writes: read in linear time, bounded, refused with the fix."""

from __future__ import annotations

import json
import time
from dataclasses import fields

import pytest

from hires_fusion.fusion_ops import rows
from hires_fusion.fusion_ops.presets import PRESETS
from hires_fusion.fusion_ops.stage import LIMITS, Stage
from hires_fusion.fusion_ops.stages import plan_stages

HUGE = 900_000
HOSTILE = {
    "deep lists": ("[" * 5000, "nested|JSON"),
    "deep objects": ('{"a":' * 3000, "nested|JSON"),
    "deep and long": ("[" * HUGE, "at most 40000"),
    "digits": ('[{"scale": 2, "steps": ' + "9" * 5000 + "}]", "a number of 5000"),
    "digits of a fraction": ('[{"scale": 2.' + "9" * 5000 + "}]", "a number of 5002"),
    "more digits": ('[{"scale": ' + "9" * HUGE + "}]", "at most 40000"),
    "rows": (json.dumps([{"scale": 2}] * HUGE), "at most 40000"),
    "few rows too many": (json.dumps([{"scale": 2}] * 16), "list at most 15"),
    "twice": ('[{"scale": 2, "scale": 3}]', "says 'scale' twice"),
    "twice inside": ('[{"scale": 2, "lift": {"a": 1, "a": 2}}]', "says 'a' twice"),
    "smaller": ('[{"scale": 0.25}]', "from 1 to 16"),
    "larger": ('[{"scale": 16.01}]', "from 1 to 16"),
    "infinite": ('[{"scale": 1e999}]', "from 1 to 16"),
    "Infinity": ('[{"scale": Infinity}]', "from 1 to 16"),
    "NaN": ('[{"scale": NaN}]', "from 1 to 16"),
    "NaN of another": ('[{"scale": 2, "cfg": NaN}]', "from 0 to 100"),
    "nothing": ('[{"scale": 2, "steps": null}]', "a whole number"),
    "a law of no level": ('[{"scale": 2, "gamma": 2}]', "add one, or leave it out"),
    "an end of no level": ('[{"scale": 2, "end_sigma": 0.2}]', "add one, or leave it out"),
    "two starts": ('[{"scale": 2, "start": 0.2, "sigma": 0.5}]', "leave one out"),
    "no room": ('[{"scale": 2, "start": 0.5, "end": 0.5}]', "lower start, or raise end"),
    "no cfg": ('[{"scale": 2, "cfg_start": 0.5, "cfg_end": 0.2}]', "raise cfg_end"),
    "a list": ('[{"scale": [2]}]', "a number from 1"),
    "a long name": ('[{"' + "x" * 10_000 + '": 2}]', "has no field 'x{40}'…"),
    "quotes": ('[{"' + '\\"' * 9000, "JSON"),
    "colons": (":" * HUGE, "at most 40000"),
    "spaces": ("[" + " " * HUGE, "at most 40000"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_stages_are_refused_at_once(case):
    text, fix = HOSTILE[case]
    begun = time.process_time()
    with pytest.raises(ValueError, match=fix) as caught:
        plan_stages("DemoFusion", 2.0, text)
    assert time.process_time() - begun < 0.5
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("rates", "fix"),
    [
        ("0.5," * HUGE, "init_rates has 3600000 characters"),
        ("0.5," * 16, "16 shares, for at most 15 stages"),
        ("9" * 10_000, "init_rates has '9{40}'…"),
        ("nan", "from 0 to 0.99"),
        ("inf", "from 0 to 0.99"),
        ("1e-400, -1e-300", "-1e-300"),
    ],
)
def test_hostile_init_rates_are_refused_at_once(rates, fix):
    begun = time.process_time()
    with pytest.raises(ValueError, match=fix):
        plan_stages("RepLDM", 2.0, init_rates=rates)
    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("scale", [1e5, 1e6, 1e308, float("inf"), float("nan"), 16.01, 0.99, 0, -2])
def test_a_scale_is_bounded_before_any_stage_is_listed(preset, scale):
    with pytest.raises(ValueError, match="up to 16 times"):
        plan_stages(preset, scale)
    assert len(plan_stages(preset, 16)) <= rows.MOST_ROWS


def test_the_largest_list_that_is_allowed_fits_the_text():
    known = {f.name: 15.999999 if f.default is None else f.default for f in fields(Stage)}
    known |= {"steps": 999, "lift": "pixel upscale model", "structure_low_pass": "resize_aliased"}
    del known["start"], known["end"]
    text = json.dumps([known] * rows.MOST_ROWS, indent=2)
    assert len(plan_stages("DemoFusion", 2.0, text)) == rows.MOST_ROWS
    assert len(text) < rows.MOST_CHARACTERS


def test_an_unknown_preset_says_which_there_are():
    with pytest.raises(ValueError, match="'Demofusion': choose DemoFusion, "):
        plan_stages("Demofusion", 2.0)


def test_the_same_size_again_is_a_stage():
    assert plan_stages("DemoFusion", 2.0, '[{"scale": 1}, {"scale": 1}]')[1].scale == 1


def test_every_number_of_a_stage_is_bounded():
    numbers = {f.name for f in fields(Stage) if "float" in str(f.type) or "int" in str(f.type)}
    assert numbers == LIMITS.keys()


def test_wishes_take_the_place_of_the_preset_and_rows_go_first():
    wishes = {"stride": 0.25, "jitter": False}
    assert plan_stages("ScaleDiff", 2.0, wishes=wishes)[0].jitter  # of its attention
    (stage,) = plan_stages("DemoFusion", 2.0, wishes=wishes)
    assert stage.stride == 0.25 and not stage.jitter and stage.cosine_scale_1 == 3
    (stage,) = plan_stages("DemoFusion", 2.0, '[{"scale": 2, "stride": 0.5}]', wishes=wishes)
    assert stage.stride == 0.5 and not stage.jitter


def test_a_share_of_a_window_is_not_rounded_below_its_decimal():
    assert [Stage(stride=n / 49).stride_cells(49) for n in range(1, 50)] == [*range(1, 50)]
    assert Stage(stride=0.29).stride_cells(100) == 29
