"""What presets cost: the count of networks, and that a dry run asks for what a run evaluates."""

from __future__ import annotations

import dataclasses
from collections import Counter
from unittest import mock

import pytest
import torch
from comfy import model_management

from hires_fusion.fusion_ops.presets import PRESETS
from hires_fusion.fusion_ops.windows import windows
from lab.bench.costs import evaluation_table, plot, preset_table, published_table
from lab.bench.dry_run import H100, Cost, Costs, DryRun, Evaluation
from lab.bench.flops import FAMILIES, Network, Work
from lab.bench.relay import run_stages, stages_of
from lab.pack import Session

# TFLOP of one evaluation of SDXL by side in pixels, counted independently of this code.
WHOLE = {1024: 6.76, 1536: 17.3, 2048: 35.9, 2560: 66.6, 3072: 114.5, 4096: 287.8}
WINDOWED = {2048: 26.9, 4096: 107.4}
# How many windows, and their TFLOP together: of half a window's overlap, a quarter's, and none.
TILED = {(2048, 64): (9, 60.8), (2048, 128): (4, 27.0)}
TILED |= {(4096, 64): (49, 331), (4096, 96): (25, 169), (4096, 128): (16, 108)}
# PFLOP at most of a square SDXL picture of so many pixels, the native one included.
BUDGETS = {
    ("HiRes Fusion fast", 4096): 2.0,
    ("HiRes Fusion fast", 8192): 6.0,
    ("HiRes Fusion best", 4096): 5.0,
}


@pytest.fixture(scope="module", autouse=True)
def room_on_the_meta_device():
    """The suite's host splits attention by the memory that a device has; this one has none."""
    room = 2**40

    def free(device=None, torch_free_too=False):
        return (room, room) if torch_free_too else room

    with mock.patch.object(model_management, "get_free_memory", free):
        yield


@pytest.fixture(scope="module")
def sdxl() -> Costs:
    return Costs("SDXL")


def rounded(operations: int, like: float) -> float:
    """TFLOP with as many decimals as the figure that it is compared with."""
    return round(operations / 1e12, len(f"{like}".partition(".")[2]))


@pytest.mark.parametrize("pixels", WHOLE)
def test_sdxl_by_size(sdxl, pixels):
    work = sdxl.network.work(pixels // 8, pixels // 8)
    assert rounded(work.all, WHOLE[pixels]) == WHOLE[pixels]
    assert sdxl.network.parameters == 2_567_463_684


@pytest.mark.parametrize("pixels", WINDOWED)
def test_sdxl_with_windowed_attention(sdxl, pixels):
    from hires_fusion.sampling.attention import WindowedAttention

    settings = WindowedAttention(jitter=False)
    work = sdxl.network.work(pixels // 8, pixels // 8, settings)
    assert rounded(work.all, WINDOWED[pixels]) == WINDOWED[pixels]
    whole = sdxl.network.work(pixels // 8, pixels // 8)
    # Nothing but attention gets less.
    assert whole.all - whole.attention == work.all - work.attention
    assert sdxl.network.work(128, 128, settings) == sdxl.network.work(128, 128)


@pytest.mark.parametrize("name", ["SD 1.5", "Flux"])
def test_other_networks_are_those_that_were_published(name):
    network = Network(FAMILIES[name])
    millions = {"SD 1.5": 860, "Flux": 11901}[name]
    assert round(network.parameters / 1e6) == millions
    side = 32
    work = network.work(side, side)
    assert work.attention < work.all
    # Of a transformer on one sequence every weight counts twice a token, but for those of the
    # vectors that modulate it: two thirds of a Flux are left.
    if name == "Flux":
        tokens = (side // 2) ** 2 + FAMILIES[name].tokens
        assert 0.5 < (work.all - work.attention) / (2 * network.parameters * tokens) < 1


@pytest.mark.parametrize(("pixels", "stride"), TILED)
def test_windows_without_jitter(sdxl, pixels, stride):
    count, operations = TILED[pixels, stride]
    side = pixels // 8
    assert len(windows((side, side), 128, stride)) == count
    assert count * sdxl.network.work(128, 128).all == pytest.approx(operations * 1e12, rel=2e-3)


class Counted(Session):
    """The demo model without its network: its calls are noted where the network would be."""

    def __init__(self):
        super().__init__(steps=3, cfg=3.0)
        from comfy.patcher_extension import WrappersMP

        self.found: Counter[tuple] = Counter()
        self.model = self.model.clone()
        self.model.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, "lab")
        self.model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "lab", self._nothing)

    def _nothing(self, executor, x, *args, **kwargs):
        self.found[tuple(x.shape[-2:])] += len(x)
        return x / 2


@pytest.fixture(scope="module")
def demo() -> Counted:
    return Counted()


@pytest.mark.parametrize("preset", PRESETS)
def test_a_dry_run_asks_for_what_a_run_evaluates(demo, preset):
    scale = 2.75  # two stages, whose sizes are no multiples
    changes = {"lift": "latent nearest", "unsharp": 0.0, "lfm": 0.0}
    demo.found.clear()
    stages = stages_of(demo, preset, scale, **changes)
    native = torch.ones(1, 4, demo.native, demo.native)
    with torch.inference_mode():
        run_stages(demo, stages, "a castle", native, 0)
    dry = DryRun(demo.model, demo.native, 1)
    dry.steps, dry.cfg = demo.steps, demo.cfg
    planned = dry.stages(preset, scale)
    assert [stage.scale for stage in planned] == [stage.scale for stage in stages]
    asked: Counter[tuple] = Counter()
    for kind, count in dry.asked.items():
        asked[kind.size] += count
    assert asked == demo.found and asked


def test_guidance_and_views_that_no_preset_has(demo):
    """Upsample Guidance for a part of the run, and cfg for a part of it."""
    dry = DryRun(demo.model, demo.native, 1)
    dry.steps, dry.cfg = 10, 3.0
    changes = {"upsample": 1.0, "upsample_end": 0.5, "cfg_end": 0.5, "start": 0.0, "end": 1.0}
    dry.stages("RepLDM", 2.0, **changes)
    whole = dry.asked[Evaluation(64, "whole", (64, 64))]
    shrunk = dry.asked[Evaluation(64, "shrunk", (32, 32))]
    steps = 10
    guided = whole - steps
    assert 0 < guided < steps and shrunk == 2 * guided


def test_costs_by_hand(sdxl, monkeypatch):
    work = {(128, 128): Work(5, 1), (256, 256): Work(30, 9)}
    monkeypatch.setattr(sdxl.network, "work", lambda h, w, attention=None: work[h, w])
    found = sdxl.cost("RepLDM", 2048)
    # One stage with the last fifth of 50 steps, enlarged as pixels.
    assert found.evaluations == {"2048 whole": 20}
    assert (found.native, found.stages) == (50 * 2 * 5, 20 * 30)
    assert found.decoded == 1024**2 + 2048**2 and found.encoded == 2048**2
    found = sdxl.cost("DemoFusion", 2048)
    assert found.evaluations == {"2048 windows": 9 * 100, "2048 lattices": 4 * 100}
    assert found.decoded == 2048**2 and found.encoded == 0
    assert found.stages == 1300 * 5


@pytest.mark.parametrize(("preset", "pixels"), BUDGETS)
def test_our_presets_keep_their_budgets(sdxl, preset, pixels):
    if preset not in PRESETS:
        pytest.skip(f"there is no preset called {preset} yet")
    assert sdxl.cost(preset, pixels).pflop <= BUDGETS[preset, pixels]


def test_demofusion_is_what_was_counted_before(sdxl):
    assert sdxl.cost("DemoFusion", 2048).pflop == pytest.approx(9.47, abs=0.005)


def test_tables():
    cost = Cost("a", "SDXL", 2048, {"2048 whole": 20}, 10**15, 10**15, 4, 0, 2 * 10**14)
    dear = dataclasses.replace(cost, preset="b", native=10**16)
    assert cost.pflop == 2 and cost.seconds == pytest.approx(2e15 / H100)
    lines = preset_table([dear, cost]).splitlines()
    assert lines[2:] == ["| a | 2.00 | 3.4 | 0.20 |", "| b | 11.00 | 18.5 | 0.20 |"]
    assert "| a | 20 × 2048 whole |" in evaluation_table([cost])


def test_published_seconds_and_the_plot():
    row = Cost("", "SDXL", 0, {}, 10**15, 5 * 10**15, 1, 1, 1)
    costs = [
        dataclasses.replace(row, preset=name, pixels=side, stages=(side // 1024) * 10**15)
        for name in PRESETS
        for side in (2048, 4096, 8192)
    ]
    table = published_table(costs)
    # 3 PFLOP in 4 s and 5 in 20.
    assert "| Rush | A100 | 4 | 20 | 750 | 250 | PixelRush |" in table
    assert "| ScaleDiff | RTX A6000 |  | 113 |  | 44 | ScaleDiff |" in table
    picture = plot(costs)
    # Three columns of points, one for each size, in every row.
    assert len({side for _, side in picture.getcolors(1 << 16)}) > 3
    assert picture.height > 20 * len(PRESETS)
