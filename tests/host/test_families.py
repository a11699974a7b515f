"""Views on small models of the host's own classes, one of each family."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import comfy.model_base
import comfy.samplers
import comfy.supported_models
import pytest
import torch

from hires_fusion.fusion_ops import lattices
from hires_fusion.sampling import latents
from hires_fusion.sampling.denoiser import add_views
from hires_fusion.sampling.plan import KEY, DilatedViews, LocalViews
from hires_fusion.sampling.steps import between_steps
from hires_fusion.sampling.transforms import skip_residual

from .families import FAMILIES, cond, latent, tiny
from .stub import patcher, sample


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


def draw(family, model, x, **options):
    """Two steps with CFG and the family's own kind of prompt."""
    prompts = {"positive": cond(family, 2), "negative": cond(family, 3)}
    return sample(model, x, steps=2, scheduler="simple", **prompts, **options)


def both(model, **options):
    tiled = add_views(model, local=LocalViews(**options))
    return add_views(tiled, dilated=DilatedViews())


def skipping():
    return between_steps(comfy.samplers.sampler_object("euler"), skip_residual(3.0))


def seen_sizes(model):
    """Collects (height, width) of what the network is given."""
    sizes = set()

    def note(network, args):
        sizes.add(tuple(args[0].shape[-2:]))

    model.model.diffusion_model.register_forward_pre_hook(note)
    return sizes


def test_cell_patch_and_native_size_are_known(family):
    model = tiny(family).model
    assert latents.cell_pixels(model) == family.cell
    assert latents.patch_cells(model) == family.patch
    assert latents.native_cells(model) == family.cells
    assert latents.native_cells(model, 3 * 256) == 3 * 256 // family.cell
    model.model_config.native_size = None
    assert latents.native_cells(model) == family.native // family.cell


def test_a_native_picture_is_plain_sampling_to_the_bit(family):
    model = tiny(family)
    for width in (family.cells, family.cells - 2):
        x = latent(family, family.cells, width, batch=2)
        plain = draw(family, model, x)
        assert torch.isfinite(plain).all() and plain.std() > 0
        assert torch.equal(plain, draw(family, both(model), x))


def test_every_view_has_the_size_the_model_wants(family):
    model = tiny(family)
    sizes = seen_sizes(model)
    height, width = 2 * family.cells + 2, family.cells + 6
    viewed = both(model)
    x = latent(family, height, width)
    out = draw(family, viewed, x, sampler=skipping())
    assert out.shape == x.shape and torch.isfinite(out).all()
    assert torch.equal(out, draw(family, viewed, x, sampler=skipping()))
    lattice = lattices.LatticeSet(2, (height, width), family.patch).size
    assert sizes == {(family.cells, family.cells), lattice}
    assert all(side % family.patch == 0 for side in lattice)


def test_sides_that_are_no_multiples_of_the_patch(family):
    model = tiny(family)
    sizes = seen_sizes(model)
    x = latent(family, 2 * family.cells + 1, family.cells + 5)
    out = draw(family, both(model), x)
    assert out.shape == x.shape and torch.isfinite(out).all()
    assert all(side % family.patch == 0 for size in sizes for side in size)
    if family.odd:
        narrow = latent(family, 2 * family.cells + 1, family.cells - 3)
        assert torch.isfinite(draw(family, both(model), narrow)).all()


def test_any_view_batch_size_gives_the_same_latent(family):
    model = both(tiny(family))
    x = latent(family, family.cells + 8, family.cells + 8, batch=2)
    many = draw(family, add_views(model, view_batch_size=16), x)
    few = draw(family, add_views(model, view_batch_size=1), x)
    assert (many - few).abs().max() <= 1e-3 * many.abs().max()


def test_windows_are_averaged_as_the_host_sees_them_alone(family):
    """x0 of one call against the plain mean of the host's own calls on the cut-out pieces."""
    model = tiny(family)
    side, canvas = family.cells, (family.cells, family.cells + 8)
    viewed = add_views(model, local=LocalViews(stride=side - 4, jitter=False, weights="uniform"))
    x = latent(family, *canvas)
    got = one_call(family, viewed, x)
    total, count = torch.zeros_like(got), torch.zeros(canvas[1])
    for start in (0, 8):
        place = {"width": canvas[1] * family.cell, "height": canvas[0] * family.cell}
        place["crop_w"] = start * family.cell  # SDXL is told of both
        piece = x[..., start : start + side]
        total[..., start : start + side] += one_call(family, model, piece, **place)
        count[start : start + side] += 1
    near = 1e-3 * float(got.abs().max())
    assert torch.allclose(got, total / count, rtol=1e-3, atol=near)
    assert not torch.allclose(got, one_call(family, model, x), rtol=1e-3, atol=near)


def one_call(family, model, x, **options):
    """x0 of one denoiser call half-way, from pure noise, without guidance."""
    ((text, known),) = cond(family, 2)
    found = []

    def once(denoiser, x, sigmas, extra_args=None, callback=None, disable=None):
        found.append(denoiser(x, sigmas[:1], **extra_args))
        return found[0]

    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", 2)[1:]
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds([[text, known | options]], cond(family, 3))
    guider.set_cfg(1.0)
    guider.sample(x, torch.zeros_like(x), comfy.samplers.KSAMPLER(once), sigmas, disable_pbar=True)
    return found[0]


def test_the_model_is_as_before_afterwards(family):
    model = tiny(family)
    x = latent(family, family.cells + 4, family.cells)
    before = draw(family, model, x)
    draw(family, both(model), x)
    assert torch.equal(before, draw(family, model, x)) and KEY not in model.model_options


def test_frames_are_kept_together():
    family = FAMILIES["Wan 2.1"]
    model = tiny(family)
    x = torch.cat([latent(family, 34, 22), 0.5 * latent(family, 34, 22)], dim=2)
    out = draw(family, both(model), x, sampler=skipping())
    assert out.shape == x.shape and torch.isfinite(out).all()
    native = x[..., :16, :16]
    assert torch.equal(draw(family, both(model), native), draw(family, model, native))


@pytest.mark.parametrize("name", ["SD 1.5", "Flux", "Qwen-Image", "HunyuanVideo"])
def test_masks_of_text_and_of_inpainting(name):
    family = FAMILIES[name]
    model = tiny(family)
    x = latent(family, 34, 22)
    mask, inpainted = torch.zeros(1, 34, 22), torch.zeros(1, *x[:, :1].shape[1:])
    mask[:, :10], inpainted[..., :9] = 1, 1
    masked = cond(dataclasses.replace(family, options={"mask": mask}), 2)
    options = {"positive": masked + cond(family, 4), "negative": cond(family, 3)}
    out = sample(both(model), x, steps=2, scheduler="simple", **options, denoise_mask=inpainted)
    assert torch.isfinite(out).all() and torch.allclose(out[..., 9:], x[..., 9:], atol=1e-4)
    plain = draw(family, both(model), x, denoise_mask=inpainted)
    assert not torch.allclose(out[..., :9], plain[..., :9])


def test_the_page_says_what_is_tested():
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    table = text.split("The demo model")[0].splitlines()
    rows = [line.strip("| ").split(" | ") for line in table if line.startswith("| ")]
    said = {row[0]: [int(re.match(r"\d+", cell)[0]) for cell in row[1:]] for row in rows[1:]}
    assert said == {
        name: [family.native, family.cell, family.patch, family.channels]
        for name, family in FAMILIES.items()
    }


def test_sd2_has_two_native_sizes():
    for kind, pixels in (("V_PREDICTION", 768), ("EPS", 512)):
        config = comfy.supported_models.SD20({"disable_unet_model_creation": True})
        kind = comfy.model_base.ModelType[kind]
        model = comfy.model_base.BaseModel(config, kind, device=torch.device("cpu"))
        assert latents.native_cells(model) == pixels // 8


def test_the_table_of_cells_agrees_with_hosts_that_know_them():
    for kind, pixels in latents.CELL_PIXELS:
        assert getattr(kind, "spacial_downscale_ratio", pixels) == pixels


def test_tables_list_subclasses_before_their_bases():
    for table in (latents.NATIVE_PIXELS, latents.CELL_PIXELS):
        kinds = [kind for kind, _ in table]
        for place, kind in enumerate(kinds):
            assert not any(issubclass(later, kind) for later in kinds[place + 1 :])


@pytest.mark.parametrize(
    ("native", "side"),
    [(0, 16), (8 * 24, 24), (8 * 10, 10), (8, 1)],
)
def test_a_given_native_size_sets_the_dilation(native, side):
    def half(x, sigma, conds):
        return 0.5 * x

    model = patcher(half, native_size=8 * 16)
    model = add_views(model, dilated=DilatedViews(cosine_scale_2=0, native=native))
    sample(model, torch.randn(1, 4, 48, 30), steps=1)
    factor = lattices.dilation_factor((48, 30), side)
    assert {tuple(call.shape[-2:]) for call in model.model.calls} == {
        lattices.LatticeSet(factor, (48, 30)).size
    }


def test_the_composite_hands_its_native_size_on():
    from hires_fusion.nodes.progressive import expand_stages

    names = ("model", "positive", "negative", "samples")
    wires = {name: [name, 0] for name in names}
    settings = {
        "positive": [],
        "negative": [],
        "noise_seed": 0,
        "steps": 2,
        "cfg": 1.0,
        "sampler_name": "euler",
        "scheduler": "simple",
    }
    family = FAMILIES["Flux 2"]
    for native, window in ((0, 0), (768, 768 // 16)):
        out = expand_stages(
            wires,
            model=tiny(family),
            samples={"samples": latent(family, 16, 16)},
            scale=2.0,
            preset="DemoFusion",
            native=native,
            **settings,
        )
        made = {node["class_type"]: node["inputs"] for node in out.expand.values()}
        assert made["HRF_TiledDiffusion"]["window"] == window
        assert made["HRF_DilatedSampling"]["native"] == native
