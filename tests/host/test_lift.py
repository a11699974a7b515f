"""Lifts: through pixels that are never rounded, by a model, sharpened, mixed by frequency."""

from __future__ import annotations

import folder_paths
import numpy as np
import pytest
import torch
from comfy_extras.nodes_upscale_model import UpscaleModelLoader
from PIL import Image
from safetensors.torch import save_file

from hires_fusion.fusion_ops.bands import LowPass, low_pass
from hires_fusion.fusion_ops.upsample import LIFTS, MODEL_LIFT, Lift, fit, resize, unsharp_mask
from hires_fusion.nodes.latents import UpsampleLatent
from hires_fusion.sampling import lift

from .masked import PoolingVAE, left_kept, randn

PIXEL_LIFTS = [name for name in LIFTS if name.startswith("pixel")]


class LevelsVAE(PoolingVAE):
    """Remembers the pixels that it encoded."""

    def encode(self, pixels):
        self.seen = pixels
        return super().encode(pixels)


@pytest.fixture
def doubler(tmp_path, monkeypatch):
    """A real UPSCALE_MODEL of two times, loaded by the host: it repeats each pixel."""
    first = torch.zeros(3, 3, 3, 3)
    first[range(3), range(3), 1, 1] = 1e-6  # the skip path of its architecture is all there is
    last = torch.zeros(12, 3, 3, 3)
    weights = {
        "body.0.weight": first,
        "body.0.bias": torch.zeros(3),
        "body.1.weight": torch.ones(3),
        "body.2.weight": last,
        "body.2.bias": torch.zeros(12),
    }
    save_file(weights, tmp_path / "doubler.safetensors")
    monkeypatch.setitem(
        folder_paths.folder_names_and_paths, "upscale_models", ([str(tmp_path)], {".safetensors"})
    )
    return UpscaleModelLoader.execute("doubler.safetensors").result[0]


class NeverDecodes(LevelsVAE):
    def decode(self, samples):
        raise AssertionError("it was decoded")


def up(latent, size, method="pixel bicubic", model=None, **options):
    samples = latent if isinstance(latent, dict) else {"samples": latent}
    return lift.upsample(samples, size, Lift(method, **options), LevelsVAE(), model)["samples"]


@pytest.mark.parametrize("method", [name for name in LIFTS if name != "none"])
@pytest.mark.parametrize(
    ("shape", "size"),
    [((2, 4, 6, 5), (12, 10)), ((1, 4, 7, 9), (10, 13)), ((2, 4, 1, 6, 5), (13, 11))],
)
def test_every_lift_at_odd_sizes_and_with_a_time_axis(doubler, method, shape, size):
    x = randn(*shape)
    got = up(x, size, method, doubler)
    assert got.shape == (*shape[:-2], *size) and torch.isfinite(got).all()
    assert torch.equal(got, up(x, size, method, doubler))
    one = up(x[:1], size, method, doubler)
    assert torch.allclose(got[:1], one, atol=1e-6)


@pytest.mark.parametrize("method", PIXEL_LIFTS)
def test_pixels_are_never_rounded(doubler, method):
    # Two pictures that an 8-bit one does not tell apart.
    x = torch.full((1, 4, 8, 8), 0.1)
    vae = LevelsVAE()
    for value in (0.1, 0.1004):
        out = lift.upsample({"samples": x * 0 + value}, (16, 16), method, vae, doubler)["samples"]
        assert torch.allclose(vae.seen, torch.full_like(vae.seen, 0.5 + 0.1 * value), atol=1e-6)
        assert torch.allclose(out, torch.full_like(out, 0.95 * value), atol=1e-5)


def test_lanczos_is_pillows_but_for_its_256_levels():
    # Weak enough that Pillow cuts nothing off between rows and columns.
    x = torch.randint(90, 160, (1, 3, 9, 7), generator=torch.Generator().manual_seed(1)) / 255
    picture = Image.fromarray((x[0].movedim(0, -1) * 255).byte().numpy())
    rounded = np.asarray(picture.resize((20, 13), Image.Resampling.LANCZOS)) / 255
    got = resize(x, (13, 20), "lanczos")[0].movedim(0, -1).clamp(0, 1)
    assert float((got - torch.from_numpy(rounded)).abs().max()) <= 1.5 / 255
    assert len(got.unique()) > 256
    flat = resize(torch.full((2, 4, 5, 6), 0.3), (11, 7), "lanczos")
    assert flat.shape == (2, 4, 11, 7) and torch.allclose(flat, torch.tensor(0.3))


def test_nearest_repeats_pixels():
    x = randn(1, 4, 3, 2)
    got = up(x, (6, 4), "latent nearest")
    assert torch.equal(got, x.repeat_interleave(2, -1).repeat_interleave(2, -2))
    assert torch.allclose(up(x, (6, 4), "pixel nearest")[:, :3], 0.95 * got[:, :3], atol=1e-5)


@pytest.mark.parametrize("scale", [1, 1.5, 2, 3, 4])
def test_an_upscale_model_runs_as_often_as_the_size_needs(doubler, scale):
    x = 0.5 * randn(1, 4, 8, 6)
    size = (int(8 * scale), int(6 * scale))
    got = up(x, size, MODEL_LIFT, doubler)
    pixels = PoolingVAE().decode(x).movedim(-1, 1)
    times = 4 if scale > 2 else 2
    pixels = pixels.repeat_interleave(times, -1).repeat_interleave(times, -2)
    expected = PoolingVAE().encode(fit(pixels, (2 * size[0], 2 * size[1])).movedim(1, -1))
    assert torch.allclose(got, expected, atol=1e-4)


def test_fit_smooths_only_what_it_makes_smaller():
    stripes = torch.tensor([0.0, 1.0]).repeat(32).expand(1, 3, 64, 64)
    assert fit(stripes, (64, 64)) is stripes
    small = fit(stripes, (16, 16))[..., 2:-2]
    assert torch.allclose(small, torch.full_like(small, 0.5), atol=0.02)


def test_unsharp_by_hand():
    x = torch.zeros(1, 1, 5, 5)
    x[..., 2, 2] = 1
    side = torch.exp(torch.tensor(-0.5))
    middle = 1 / (1 + 2 * side)  # of the one-dimensional kernel
    got = unsharp_mask(x, 1.5, 1.0)
    assert got[0, 0, 2, 2] == pytest.approx(float(1 + 1.5 * (1 - middle**2)), abs=1e-5)
    assert got[0, 0, 2, 1] == pytest.approx(float(-1.5 * side * middle**2), abs=1e-5)
    assert torch.allclose(got[0, 0, 0], torch.zeros(5), atol=1e-6)
    assert torch.allclose(unsharp_mask(torch.ones(1, 3, 4, 6), 2.0, 1.0), torch.ones(1, 3, 4, 6))
    assert unsharp_mask(x, 0, 1.0) is x


def test_unsharp_leaves_what_a_mask_keeps():
    x, mask = 0.5 * randn(1, 4, 16, 24), left_kept((1, 1, 16, 24)).round()
    masked = {"samples": x, "noise_mask": mask}
    plain, sharp = up(x, (32, 48)), up(x, (32, 48), unsharp=1.0)
    got = up(masked, (32, 48), unsharp=1.0)
    kept = (mask == 0).repeat_interleave(2, -1).repeat_interleave(2, -2).expand_as(got)
    assert torch.equal(got[kept], plain[kept]) and torch.equal(got[~kept], sharp[~kept])
    assert not torch.allclose(plain, sharp, atol=1e-2)


def test_frequencies_below_lfm_are_the_latents():
    x, band = randn(1, 4, 16, 12), LowPass("resize", 0.25)
    size = (32, 24)
    slow, fast = up(x, size, "latent bicubic"), up(x, size)
    got = up(x, size, lfm=0.25)
    expected = low_pass(slow, band) + fast - low_pass(fast, band)
    assert torch.allclose(got, expected, atol=1e-5)
    assert not torch.allclose(got, fast, atol=1e-2)
    assert torch.allclose(up(x, size, lfm=1.0), slow, atol=1e-5)
    video = up(x.unsqueeze(2), size, lfm=0.25)
    assert torch.allclose(video.squeeze(2), got, atol=1e-5)


def test_none_is_the_latent_itself():
    x = randn(2, 16, 7, 5)
    latent = {"samples": x, "batch_index": [3, 4]}
    out = UpsampleLatent.execute(latent, 1.0, "none", 0, 0).result[0]
    assert torch.equal(out["samples"], x) and out["batch_index"] == [3, 4]


@pytest.mark.parametrize("method", [name for name in PIXEL_LIFTS if name != MODEL_LIFT])
def test_a_lift_of_the_same_size_only_goes_through_the_vae(method):
    x = 0.5 * randn(1, 4, 8, 8)
    expected = PoolingVAE().encode(PoolingVAE().decode(x))
    assert torch.allclose(up(x, (8, 8), method), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "fix"),
    [
        ({"method": "none"}, "set scale to 1"),
        ({"method": "latent bicubic", "unsharp": 1.0}, "choose a pixel method"),
        ({"method": "latent nearest", "lfm": 0.1}, "choose a pixel method"),
        ({"method": MODEL_LIFT}, "Load Upscale Model"),
        ({"method": "pixel foo"}, "choose from latent bicubic, pixel bicubic"),
        ({"method": "pixel bicubic", "vae": None}, "connect a VAE"),
    ],
)
def test_what_cannot_be_lifted_says_the_fix(options, fix):
    settings = {"vae": PoolingVAE()} | options
    with pytest.raises(ValueError, match=fix):
        UpsampleLatent.execute({"samples": randn(1, 4, 8, 8)}, 2.0, height=0, width=0, **settings)


@pytest.mark.parametrize("method", PIXEL_LIFTS)
def test_a_picture_that_is_there_is_not_decoded_again(doubler, method):
    mask = torch.ones(1, 1, 6, 5)
    mask[..., :2] = 0
    latent = {"samples": randn(2, 4, 6, 5), "noise_mask": mask}
    picture = LevelsVAE().decode(latent["samples"])
    how = Lift(method, unsharp=1.0, lfm=0.125)
    want = lift.upsample(latent, (12, 11), how, LevelsVAE(), doubler)
    got = lift.upsample(latent, (12, 11), how, NeverDecodes(), doubler, picture)
    assert torch.equal(got["samples"], want["samples"])
    with_alpha = torch.cat([picture, picture[..., :1] * 0], -1)
    got = UpsampleLatent.execute(
        latent, 2.0, method, 12, 11, NeverDecodes(), doubler, with_alpha, 1.0, 0.125
    ).result[0]
    assert torch.equal(got["samples"], want["samples"])


def test_the_picture_is_taken_in_place_of_the_latent():
    x = randn(1, 4, 6, 5)
    other = torch.rand(1, 12, 10, 3)
    got = lift.upsample({"samples": x}, (6, 5), "pixel bicubic", LevelsVAE(), image=other)
    assert torch.allclose(got["samples"], PoolingVAE().encode(other), atol=1e-5)
    wider = torch.nn.functional.pad(other, (0, 0, 0, 1, 0, 1))  # as the host crops what it encodes
    crop = lift.upsample({"samples": x}, (6, 5), "pixel bicubic", LevelsVAE(), image=wider)
    assert torch.equal(crop["samples"], got["samples"])
    plain = lift.upsample({"samples": x}, (12, 10), "latent bicubic")
    with_it = lift.upsample({"samples": x}, (12, 10), "latent bicubic", LevelsVAE(), image=other)
    assert torch.equal(plain["samples"], with_it["samples"])


@pytest.mark.parametrize("shape", [(1, 12, 12, 3), (2, 12, 10, 3), (1, 10, 12, 3), (1, 24, 20, 3)])
def test_a_picture_of_another_latent_is_refused(shape):
    x = {"samples": randn(1, 4, 6, 5)}
    with pytest.raises(ValueError, match=r"1 of 12 x 10 pixels, and it is .*: connect the IMAGE"):
        lift.upsample(x, (12, 10), "pixel bicubic", NeverDecodes(), image=torch.zeros(shape))
