"""What any stage would refuse is said before the first one runs, and what is wired before stays."""

from __future__ import annotations

import json
import re

import comfy.samplers
import comfy_extras.nodes_easycache
import pytest
import torch

from hires_fusion.fusion_ops.presets import PRESETS
from hires_fusion.fusion_ops.stage import CHOICES, LIMITS
from hires_fusion.fusion_ops.upsample import Lift
from hires_fusion.nodes import NODES, inputs
from hires_fusion.nodes.progressive import ProgressiveUpscale
from hires_fusion.sampling import lift, memory
from hires_fusion.sampling.denoiser import add_views
from hires_fusion.sampling.latents import native_cells, smallest_view
from hires_fusion.sampling.plan import DilatedViews, LocalViews
from hires_fusion.sampling.steps import between_steps
from hires_fusion.sampling.transforms import skip_residual
from hires_fusion.sampling.vae import limited

from . import families
from .expansion import Vae, expand, first
from .families import FAMILIES, tiny
from .stub import cond, patcher, sample

WHOLE = {"tiled": False, "dilated": False, "skip_residual": False}
LATER = [{"scale": 1.5, **WHOLE, "start": 0.5}, {"scale": 2}]
SCHEMAS = {node.define_schema().node_id: node.define_schema() for node in NODES}


def later(**changes):
    """A first stage that nothing refuses, and a second one."""
    return json.dumps([LATER[0], {"scale": 2, **WHOLE, **changes}])


def easycache(model):
    node = comfy_extras.nodes_easycache.EasyCacheNode
    return node.execute(model, 0.2, 0.15, 0.95, False).args[0]


def test_a_cache_that_only_the_second_stage_cannot_have():
    model = easycache(patcher(None, native_size=256))
    with pytest.raises(ValueError, match="LazyCache"):
        expand(model, stages=json.dumps(LATER))
    assert expand(model, stages=later())  # the whole canvas bears it


def test_conds_made_for_another_size_than_the_second_stage_s():
    made = {"camera_conditions": torch.zeros(1, 24, 1, 384, 288)}
    positive = [[cond()[0][0], cond()[0][1] | made]]
    with pytest.raises(ValueError, match=r"stage 2.*camera_conditions"):
        expand(positive=positive, stages=json.dumps(LATER))
    assert expand(positive=positive, stages=later())


def test_views_that_are_on_the_model_count_where_no_stage_has_any():
    model = add_views(patcher(None, native_size=256), local=LocalViews())
    with pytest.raises(ValueError, match="LazyCache"):
        expand(easycache(model), stages=later())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"stages": later(skip_residual=True), "sampler_name": "uni_pc"}, "choose euler"),
        ({"stages": later(lift="pixel bicubic")}, "stage 2 has a pixel lift: connect a VAE"),
        ({"model": tiny(FAMILIES["SDXL"]), "native": 8}, "native is 8 pixels, and SDXL takes no"),
        ({"long_side": 65536}, "up to 16 times"),
        ({"samples": torch.zeros(1, 4, 32, 24)}, "sample it first, or encode"),
        ({"samples": torch.ones(1, 16, 32, 24)}, r"16 channels, 32 x 24 cells, .*\(SDXL\) takes 4"),
        ({"preset": "Demofusion"}, "choose DemoFusion"),
    ],
)
def test_refusals_of_later_stages_come_first(changes, says):
    with pytest.raises(ValueError, match=says):
        expand(**changes)


def test_a_pixel_lift_of_a_later_stage_needs_a_vae_of_these_latents():
    class Other(Vae):
        latent_channels = 16

    class Broken(Vae):
        def throw_exception_if_invalid(self):
            raise RuntimeError("no VAE in it")

    rows = later(lift="pixel bicubic")
    assert expand(stages=rows, vae=Vae())
    with pytest.raises(ValueError, match="stage 2: the VAE decodes latents of 16 channels"):
        expand(stages=rows, vae=Other())
    with pytest.raises(RuntimeError, match="no VAE in it"):
        expand(stages=rows, vae=Broken())


def test_an_empty_latent_of_other_channels_is_the_hosts_to_fit():
    assert expand(samples=torch.zeros(1, 16, 32, 24), stages=later())


def test_a_latent_of_another_model_is_refused_where_one_is_diffused():
    model = patcher(None)
    with pytest.raises(ValueError, match="samples is a latent of 16 channels"):
        lift.diffuse(model, {"samples": torch.ones(1, 16, 8, 8)}, None, torch.tensor(1.0))


@pytest.mark.parametrize("path", ["views", "between steps"])
def test_a_latent_of_another_model_is_refused_where_one_is_sampled(path):
    model, sampler = patcher(None), "euler"
    if path == "views":
        model = add_views(model, local=LocalViews(window=16))
    else:
        sampler = between_steps(comfy.samplers.sampler_object("euler"), skip_residual(3.0))
    with pytest.raises(ValueError, match=r"latent_image is a latent of 16 .*\(SDXL\) takes 4"):
        sample(model, torch.ones(1, 16, 32, 32), sampler=sampler)
    assert not model.model.calls


def test_a_decode_beyond_the_memory_is_refused_before_it_is_tried(monkeypatch):
    class Host(Vae):
        def decode(self, samples):
            return "whole"

        def decode_tiled(self, samples, tile_x, tile_y, overlap):
            return f"tiles of {tile_x}"

    def limits(area, side=512):
        return limited(
            Host(),
            multi_encoder=False,
            multi_decoder=True,
            encoder_limit_area=0,
            decoder_limit_area=area,
            tile_size=side,
        )

    samples = torch.ones(2, 4, 8, 16)
    need = 2 * 64 * 128 * 3 * 4
    monkeypatch.setattr(memory, "attainable", lambda device: need)
    assert limits(64 * 128).decode(samples) == "whole"
    with pytest.raises(ValueError, match=r"decoding 64 x 128 pixels needs .* decode fewer"):
        limits(0).decode(samples)  # tiles are put together three times
    monkeypatch.setattr(memory, "attainable", lambda device: 3 * need)
    assert limits(0, 64).decode(samples) == "tiles of 8"
    monkeypatch.setattr(memory, "attainable", lambda device: need - 1)
    with pytest.raises(ValueError, match="decoding 64 x 128 pixels"):
        limits(64 * 128).decode(samples)


def test_a_result_beyond_the_memory_is_refused_with_its_need_and_the_fix(monkeypatch):
    samples = torch.ones(1, 4, 4096, 4096)
    need = 4 * 65536**2 * 4
    monkeypatch.setattr(memory, "attainable", lambda device: need - 1)
    with pytest.raises(ValueError, match=r"65536 x 65536 cells needs 68\.7 GB .*smaller scale"):
        lift.upsample({"samples": samples}, (65536, 65536), "latent bicubic")
    monkeypatch.setattr(memory, "attainable", lambda device: need)
    lift.check_upsample(samples, (65536, 65536), Lift())


@pytest.mark.parametrize(
    ("samples", "method", "bytes_"),
    [
        (torch.ones(2, 4, 8, 8), "latent bicubic", 2 * 4 * 64 * 64 * 4),
        (torch.ones(2, 4, 8, 8, dtype=torch.float16), "latent bicubic", 2 * 4 * 64 * 64 * 6),
        (torch.ones(1, 4, 3, 8, 8), "latent bicubic", 4 * 3 * 64 * 64 * 4),
        (torch.ones(2, 4, 8, 8), "pixel lanczos", 2 * 3 * 512 * 512 * 4),
    ],
)
def test_exactly_what_can_be_had_is_not_refused(monkeypatch, samples, method, bytes_):
    monkeypatch.setattr(memory, "attainable", lambda device: bytes_)
    lift.check_upsample(samples, (64, 64), Lift(method), Vae())
    monkeypatch.setattr(memory, "attainable", lambda device: bytes_ - 1)
    with pytest.raises(ValueError, match="GB can be had: choose a smaller scale or size"):
        lift.check_upsample(samples, (64, 64), Lift(method), Vae())


def test_a_later_stage_beyond_the_memory_is_refused_before_the_first(monkeypatch):
    one = 4 * 64 * 48 * 4  # a latent of twice the size
    known = json.dumps([{"scale": 2, **WHOLE}])
    monkeypatch.setattr(memory, "attainable", lambda device: 3 * one)
    assert expand(stages=known)
    monkeypatch.setattr(memory, "attainable", lambda device: 5 * one)
    with pytest.raises(ValueError, match="stage 2: a picture of 128 x 96 latent cells needs"):
        expand(stages=json.dumps([{"scale": 2, **WHOLE}, {"scale": 4, **WHOLE}]))


def test_the_computer_gives_what_is_free_and_its_swap(monkeypatch):
    import comfy.model_management as host

    monkeypatch.setattr(host, "get_free_memory", lambda device: 5)
    monkeypatch.setattr(memory.psutil, "swap_memory", lambda: type("Swap", (), {"free": 2}))
    assert memory.attainable(torch.device("cpu")) == 7
    monkeypatch.setattr(host, "get_total_memory", lambda device: 11)
    assert memory.attainable(torch.device("meta")) == 11


@pytest.mark.parametrize("family", ["SD 1.5", "SDXL", "Flux", "Qwen-Image"])
def test_the_smallest_view_is_one_that_the_network_takes(family):
    known = FAMILIES[family]
    model = tiny(known)
    side = smallest_view(model.model)
    prompts = {"positive": families.cond(known, 1), "negative": families.cond(known, 2)}
    out = sample(model, families.latent(known, side, side), steps=1, scheduler="simple", **prompts)
    assert out.isfinite().all()


def test_the_demo_model_takes_its_smallest_view():
    from hires_fusion.demo.loader import load_demo_model

    model, clip, _ = load_demo_model()
    text = clip.encode_from_tokens_scheduled(clip.tokenize("a boat"))
    side = smallest_view(model.model)
    empty = torch.zeros(1, 4, side, side)
    assert sample(model, empty, steps=1, positive=text, negative=text).isfinite().all()
    with pytest.raises(ValueError, match="native is 8 pixels"):
        expand(model, native=8)


def test_views_too_small_for_the_network_are_refused_before_it_is_called():
    model = tiny(FAMILIES["SDXL"])
    side = smallest_view(model.model)
    assert side == 2 ** (len(model.model.model_config.unet_config["channel_mult"]) - 1) > 1
    latent = families.latent(FAMILIES["SDXL"], 32, 32)
    for views in ({"local": LocalViews(window=1, stride=1)}, {"dilated": DilatedViews(factor=32)}):
        with pytest.raises(ValueError, match="1 x 1 latent cells are too small for SDXL"):
            sample(add_views(model, **views), latent, steps=1, positive=cond(), negative=cond())
    with pytest.raises(ValueError, match=f"no pictures below {side * 8}: .* or 0 for 128"):
        native_cells(model.model, side * 8 - 1)
    assert native_cells(model.model, side * 8) == side


def wired(**views):
    return add_views(patcher(None, native_size=256), **views)


def test_tiled_diffusion_wired_before_keeps_its_say():
    local = LocalViews(24, 5, False, "gaussian", "zero", "padded", "shifted")
    nodes = expand(wired(local=local, view_batch_size=3))
    tiled = first(nodes, "HRF_TiledDiffusion")
    assert tiled | {"model": None} == {
        **{"model": None, "window": 24, "stride": 5, "jitter": False, "weights": "gaussian"},
        **{"border": "zero", "crop": "padded", "grid": "shifted", "view_batch_size": 3},
    }
    assert first(nodes, "HRF_DilatedSampling") == first(expand(), "HRF_DilatedSampling")


def test_what_it_leaves_open_is_the_composites():
    tiled = first(expand(wired(local=LocalViews()), view_batch_size=2), "HRF_TiledDiffusion")
    assert (tiled["window"], tiled["stride"], tiled["view_batch_size"]) == (0, 16, 2)
    turbo = expand(wired(local=LocalViews(window=24)), preset="DemoFusion-Turbo")
    assert first(turbo, "HRF_TiledDiffusion")["stride"] == 18  # three quarters of its window
    listed = expand(wired(local=LocalViews(stride=5)), stages='[{"scale": 2, "stride": 0.25}]')
    assert first(listed, "HRF_TiledDiffusion")["stride"] == 8


def test_dilated_sampling_wired_before_keeps_its_say():
    dilated = DilatedViews(3, 0.5, 0.25, 0.4, True, 128)
    found = first(expand(wired(dilated=dilated)), "HRF_DilatedSampling")
    assert found | {"model": None} == {
        **{"model": None, "factor": 3, "cosine_scale_2": 0.5, "cosine_scale_3": 0.25},
        **{"sigma": 0.4, "interaction": True, "native": 128},
    }
    assert first(expand(wired(dilated=dilated), native=256), "HRF_DilatedSampling")["native"] == 256


def test_a_model_without_views_expands_as_ever():
    tiled = first(expand(), "HRF_TiledDiffusion")
    assert (tiled["window"], tiled["stride"], tiled["view_batch_size"]) == (0, 16, 0)
    assert first(expand(native=128), "HRF_TiledDiffusion")["window"] == 16


# How a run starts, of which a row has one, and what of the other one must go.
BY_SHARE = {"end": 1, "sigma": None, "gamma": None, "end_sigma": None}
BY_LEVEL = {"start": None, "end": None, "gamma": 0, "end_sigma": 0, "steps": 8}


@pytest.mark.parametrize("starts", [BY_SHARE, BY_LEVEL | {"sigma": 14}, BY_LEVEL | {"sigma": 0.1}])
@pytest.mark.parametrize("end", [0, 1])
def test_every_value_that_a_stage_takes_is_one_that_its_node_takes(end, starts):
    row = {name: limits[end] for name, limits in LIMITS.items()} | {"scale": 2}
    for name, known in CHOICES.items():
        row[name] = known[-end]
    row |= {"lift": "pixel bicubic", "cfg_start": 0, "cfg": 2, "cfg_end": 0.001} | starts
    row |= {name: True for name in ("windowed_attention", "match", "interaction")}
    row = {name: value for name, value in row.items() if value is not None}
    model = tiny(FAMILIES["SDXL"])
    for strength in (0.0, 0.01, 1.0):
        nodes = expand(model, stages=json.dumps([row]), strength=strength, vae=Vae(), native=256)
        for kind, given in nodes.values():
            if kind in SCHEMAS:
                plain = {k: v for k, v in given.items() if not isinstance(v, list)}
                assert inputs.check(SCHEMAS[kind], plain) == plain


def queue(**typed):
    """As the host does: lists of what is typed, (None,) for what is linked."""
    listed = {k: (None,) if v is None else [v] for k, v in typed.items()}
    return ProgressiveUpscale.validate_inputs(**listed)


PIXELS = [name for name, p in PRESETS.items() if p.rows[0].lift.startswith("pixel")]


@pytest.mark.parametrize("preset", PIXELS)
def test_a_preset_without_its_vae_is_named_when_it_is_queued(preset):
    with pytest.raises(
        ValueError, match=f"the preset {re.escape(preset)} .*connect a VAE .*DemoFusion"
    ):
        queue(preset=preset, scale=2.0, samples=None, model=None)
    assert queue(preset=preset, scale=2.0, vae=None, samples=None) is True
    assert queue(preset=None, scale=2.0) is True
    rows = '[{"scale": 2, "lift": "latent bicubic"}]'
    assert queue(preset=preset, scale=2.0, stages=rows) is True


def test_there_are_presets_that_need_a_vae_and_others():
    assert "RepLDM" in PIXELS and "DemoFusion" not in PIXELS
    assert all(queue(preset=name, scale=None) is True for name in PRESETS if name not in PIXELS)


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ({"stages": "[" * 5000}, "nested"),
        ({"stages": '[{"scale": 2}, {"scale": 3, "sigmas": 1}]'}, "stage 2 has no field 'sigmas'"),
        ({"stages": '[{"scale": 2, "lift": "pixel bicubic"}]'}, "connect a VAE"),
        ({"init_rates": "0.9; 0.8"}, "init_rates has"),
        ({"stages": '[{"scale": 2}]', "init_rates": "0.8"}, "empty one"),
        ({"scale": float("nan")}, "scale is nan: give a number from 1.0 to 16.0"),
        ({"preset": "zzz"}, "preset is the text 'zzz'"),
    ],
)
def test_what_is_written_wrong_is_refused_when_it_is_queued(typed, says):
    with pytest.raises(ValueError, match=says):
        queue(**({"preset": "DemoFusion", "scale": 2.0} | typed))
