"""AGF, DSF, SpecFusion and CADR against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from hires_fusion.fusion_ops import latent_fusion as lf
from hires_fusion.fusion_ops import spectrum as sp

KINDS = (lf.AGF, lf.DSF)
SHAPES = [(2, 4, 7, 5), (1, 16, 6, 9), (3, 4, 1, 1), (2, 4, 3, 6, 5)]


def pair(*shape, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=g).to(dtype) for _ in range(2))


def test_agf_by_hand():
    weights = {"agf.weight": torch.zeros(2, 4, 1, 1), "agf.bias": torch.tensor([0.5, -0.25])}
    weights["agf.weight"][0, 0] = 2.0  # the base's first channel, to the base's logit
    weights["agf.weight"][1, 3] = -1.0  # the refined latent's second channel, to its own
    base = torch.tensor([[1.0, 0.0], [7.0, 7.0]]).view(1, 2, 1, 2)
    refined = torch.tensor([[9.0, 9.0], [3.0, -2.0]]).view(1, 2, 1, 2)
    logits = [(2 * 1 + 0.5, -3 - 0.25), (0.5, 2 - 0.25)]
    expected = [math.exp(r) / (math.exp(b) + math.exp(r)) for b, r in logits]
    share = lf.refined_share("agf", base, refined, weights)
    assert share.shape == (1, 1, 1, 2)
    assert share.flatten().tolist() == pytest.approx(expected, rel=1e-5)
    fused = lf.blend(base, refined, share)
    assert fused[0, 0, 0, 1] == pytest.approx(expected[1] * 9, rel=1e-5)
    assert fused[0, 1, 0, 0] == pytest.approx(7 - 4 * expected[0], rel=1e-5)


def test_dsf_by_hand():
    weights = {"dsf.weight": torch.zeros(1, 2, 7, 7), "dsf.bias": torch.tensor([0.1])}
    weights["dsf.weight"][0, 0, 3, 3] = 1.0  # mean of the refined latent, here
    weights["dsf.weight"][0, 1, 3, 6] = 0.5  # maximum of the base, three cells to the right
    base, refined = torch.zeros(1, 4, 1, 8), torch.zeros(1, 4, 1, 8)
    base[0, :, 0, 5] = torch.tensor([-1.0, 4.0, 2.0, 0.0])
    refined[0, :, 0, 2] = torch.tensor([1.0, 2.0, 3.0, 6.0])
    share = lf.refined_share("dsf", base, refined, weights).flatten()
    assert share[2] == pytest.approx(1 / (1 + math.exp(-(3 + 2 + 0.1))), rel=1e-5)
    assert share[0] == share[7] == pytest.approx(1 / (1 + math.exp(-0.1)), rel=1e-5)


@pytest.mark.parametrize(("kind", "fan_in"), [("agf", 8), ("dsf", 98)])
def test_published_weights_are_a_fresh_convolution(kind, fan_in):
    torch.manual_seed(5)
    conv = torch.nn.Conv2d(8, 2, 1) if kind == "agf" else torch.nn.Conv2d(2, 1, 7)
    got = lf.published_weights(kind, 4, 5)
    assert torch.equal(got[f"{kind}.weight"], conv.weight)
    assert torch.equal(got[f"{kind}.bias"], conv.bias)
    assert got[f"{kind}.weight"].abs().max() <= fan_in**-0.5
    again, other = lf.published_weights(kind, 4, 5), lf.published_weights(kind, 4, 6)
    assert torch.equal(got[f"{kind}.bias"], again[f"{kind}.bias"])
    assert not torch.equal(got[f"{kind}.bias"], other[f"{kind}.bias"])
    lf.check_weights(kind, 4, got)


def test_wrong_weights_name_the_right_keys():
    dsf = lf.published_weights("dsf", 4, 0)
    for kind, channels, weights in (
        ("agf", 4, dsf),
        ("agf", 4, lf.published_weights("agf", 16, 0)),
        ("dsf", 4, {"dsf.weight": dsf["dsf.weight"]}),
        ("dsf", 4, {f"layer{i}": torch.zeros(1) for i in range(9)}),
    ):
        with pytest.raises(ValueError, match=rf"expected the keys .*{kind}\.weight.*{kind}\.bias"):
            lf.check_weights(kind, channels, weights)
    with pytest.raises(ValueError, match="choose agf or dsf"):
        lf.weight_shapes("cat", 4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_fusing_a_latent_with_itself_changes_nothing(kind, dtype):
    a = pair(2, 16, 7, 5, dtype=dtype)[0]
    share = lf.refined_share(kind, a, a, lf.published_weights(kind, 16, 1))
    assert share.shape == (2, 1, 7, 5) and bool(((share > 0) & (share < 1)).all())
    assert torch.equal(lf.blend(a, a, share), a)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_blend_ends_and_middle(shape, dtype):
    base, refined = pair(*shape, dtype=dtype)
    assert torch.equal(lf.blend(base, refined, 0), base)
    assert torch.equal(lf.blend(base, refined, 1), refined)
    middle = (base.float() + refined.float()) / 2
    assert torch.allclose(lf.blend(base, refined, 0.5).float(), middle, atol=2e-3)


def test_a_blend_is_the_same_in_raw_and_scaled_space():
    base, refined = pair(1, 4, 6, 6)
    share = torch.rand(1, 1, 6, 6)
    there = lf.blend(base * 0.13 - 0.2, refined * 0.13 - 0.2, share)
    assert torch.allclose((there + 0.2) / 0.13, lf.blend(base, refined, share), atol=1e-5)


def published_specfusion(refined, base, base_c, rho):
    """The equations of the published code, in its own order of operations."""
    height, width = refined.shape[-2:]
    high, low = (torch.fft.fftshift(torch.fft.fft2(x), dim=(-2, -1)) for x in (refined, base))
    tall, wide = int(height * base_c * (1 - rho)), int(width * base_c * (1 - rho))
    mask = torch.ones(height, width)
    mask[height // 2 - tall : height // 2 + tall, width // 2 - wide : width // 2 + wide] = rho
    fused = torch.fft.ifftshift(high * mask + low * (1 - mask), dim=(-2, -1))
    return torch.fft.ifft2(fused).real


@pytest.mark.parametrize("size", [(128, 128), (33, 20), (31, 47), (5, 64)])
@pytest.mark.parametrize("rho", [0.85, 0.8, 0.6, 0.0])
def test_specfusion_is_the_published_one(size, rho):
    base, refined = pair(2, 4, *size)
    got = sp.frequency_fusion(base, refined, sp.published_band(rho, 0.5))
    assert torch.allclose(got, published_specfusion(refined, base, 0.5, rho), atol=2e-6)


def test_the_box_by_hand():
    band = sp.published_band(0.75, 0.5)  # an eighth of each side: 1 row of 8, 2 columns of 16
    assert band == (0.125, 0.75, "box", False)
    share = torch.fft.fftshift(sp.refined_spectrum_share(8, 16, band))
    expected = torch.ones(8, 16)
    expected[3:5, 6:10] = 0.75
    assert torch.equal(share, expected)
    exact = sp.refined_spectrum_share(8, 16, band._replace(hermitian=True))
    expected = torch.ones(8, 16)
    expected[4, 7:10] = 0.75
    assert torch.equal(torch.fft.fftshift(exact), expected)
    assert sp.published_band(0.75, 0.5, radius=0.3, low_mix=0.0)[:2] == (0.3, 0.0)
    assert sp.published_band(0, 1)[:2] == (0.5, 0)


@pytest.mark.parametrize("edge", sp.EDGES)
@pytest.mark.parametrize("size", [(8, 8), (7, 12)])
def test_exact_masks_have_a_mirror_image_and_leave_no_imaginary_part(edge, size):
    share = sp.refined_spectrum_share(*size, sp.Band(0.3, 0.2, edge, True))
    mirrored = share.flip(0, 1).roll((1, 1), (0, 1))
    assert torch.allclose(share, mirrored)
    x = torch.fft.ifft2(torch.fft.fft2(pair(1, 4, *size)[0].double()) * share)
    assert x.imag.abs().max() < 1e-7


def test_the_real_part_of_the_published_box_is_a_symmetric_mask():
    base, refined = pair(1, 4, 16, 12)
    band = sp.Band(0.25, 0.1)
    share = sp.refined_spectrum_share(16, 12, band)
    even = (share + share.flip(0, 1).roll((1, 1), (0, 1))) / 2
    spectrum = torch.fft.fft2(refined) * even + torch.fft.fft2(base) * (1 - even)
    fused = torch.fft.ifft2(spectrum)
    assert fused.imag.abs().max() < 1e-6
    assert torch.allclose(sp.frequency_fusion(base, refined, band), fused.real, atol=2e-6)


@pytest.mark.parametrize("edge", ["gaussian", "butterworth"])
def test_soft_edges_are_half_at_the_radius(edge):
    share = sp.refined_spectrum_share(40, 20, sp.Band(0.25, 0.4, edge))
    assert share[0, 0] == pytest.approx(0.4)
    assert share[10, 0] == share[0, 5] == pytest.approx(0.7)  # 10 of 40 rows, 5 of 20 columns
    assert bool((share[:21, 0].diff() >= 0).all()) and share[20, 0] > 0.95
    assert bool((sp.refined_spectrum_share(9, 9, sp.Band(0, 0, edge)) == 1).all())


def test_a_wave_comes_from_the_latent_that_its_frequency_belongs_to():
    place = torch.arange(32) * 2 * math.pi / 32
    slow, fast = (
        torch.cos(2 * place).expand(1, 1, 32, 32),
        torch.cos(12 * place).expand(1, 1, 32, 32),
    )
    band = sp.Band(0.25, 0.0, hermitian=True)  # frequencies below 8 from the base
    fused = sp.frequency_fusion(3 * slow + 5 * fast, -slow - fast, band)
    assert torch.allclose(fused, 3 * slow - fast, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_specfusion_ends(shape, dtype):
    base, refined = pair(*shape, dtype=dtype)
    assert sp.frequency_fusion(base, refined, sp.published_band(1, 0.5)) is refined
    assert sp.frequency_fusion(base, refined, sp.Band(0, 0)) is refined
    for edge in sp.EDGES:
        band = sp.Band(0.3, 0.2, edge)
        fused = sp.frequency_fusion(base, refined, band)
        assert fused.shape == shape and fused.dtype == dtype
        assert torch.equal(sp.frequency_fusion(refined, refined, band), refined)
    everything = sp.frequency_fusion(base.float(), refined.float(), sp.Band(0.5, 0))
    if all(side % 2 == 0 for side in shape[-2:]):
        assert torch.allclose(everything, base.float(), atol=1e-6)


def test_a_device_without_complex_numbers_gets_the_same_from_the_cpu(monkeypatch):
    class Elsewhere(torch.Tensor):
        """Looks as if it lay on a device whose FFT is missing."""

        @property
        def device(self):
            return torch.device("meta")

        def cpu(self):
            return self.as_subclass(torch.Tensor)

    fft2, calls = torch.fft.fft2, []

    def missing(x):
        calls.append(type(x))
        if type(x) is Elsewhere:
            raise RuntimeError("not implemented for this device")
        return fft2(x)

    base, refined = pair(1, 4, 8, 8)
    band = sp.Band(0.25, 0)
    expected = sp.frequency_fusion(base, refined, band)
    monkeypatch.setattr(torch.fft, "fft2", missing)
    monkeypatch.setattr(torch.Tensor, "to", lambda x, *args, **kwargs: x)
    got = sp.frequency_fusion(*(x.as_subclass(Elsewhere) for x in (base, refined)), band)
    monkeypatch.undo()
    assert calls == [Elsewhere, torch.Tensor]
    assert torch.equal(got.as_subclass(torch.Tensor), expected)


def test_an_error_of_the_cpu_is_not_hidden(monkeypatch):
    def broken(x):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(torch.fft, "fft2", broken)
    with pytest.raises(RuntimeError, match="out of luck"):
        sp.frequency_fusion(*pair(1, 4, 4, 4), sp.Band(0.25, 0))


@pytest.mark.parametrize(
    "band", [sp.Band(0.6, 0), sp.Band(-0.1, 0), sp.Band(0.2, 1.2), sp.Band(0.2, 0, "round")]
)
def test_a_band_that_is_none_says_the_fix(band):
    with pytest.raises(ValueError, match="choose"):
        sp.refined_spectrum_share(8, 8, band)


def test_the_spectrum_picture():
    place = torch.arange(16) * 2 * math.pi / 16
    wave = torch.cos(4 * place).expand(1, 4, 16, 16)  # 4 columns off the middle
    spectrum = sp.log_spectrum(wave)
    assert spectrum.shape == (1, 16, 16)
    assert spectrum[0, 8, 12] == spectrum[0, 8, 4] == pytest.approx(math.log1p(128), rel=1e-5)
    assert spectrum.sum() == pytest.approx(2 * math.log1p(128), rel=1e-4)
    panels = sp.spectrum_panels([wave, wave * 0, torch.randn(1, 4, 16, 16)], side=30, gap=2)
    assert panels.shape == (1, 32, 3 * 32 + 2 * 2, 3)
    assert panels.min() == 0 and panels.max() == 1
    assert panels[0, 16, 24, 0] == 1 and bool((panels[0, :, 34:66] == 0).all())
    assert sp.spectrum_panels([torch.randn(2, 4, 3, 9, 300)]).shape == (2, 9, 300, 3)


def test_cadr():
    assert sp.cadr(100) == pytest.approx((0.12, 3.6, 16, 0.60))
    assert sp.cadr(0) == sp.cadr(-5) == pytest.approx((0.30, 5.0, 30, 0.85))
    assert sp.cadr(60) == pytest.approx((0.192, 4.16, 22, 0.70))  # 21.6 steps, rounded
    assert sp.cadr(200) == sp.cadr(100)
    assert isinstance(sp.cadr(60).steps, int)
    assert sp.cadr(60).run_steps == 4 and sp.cadr(100).run_steps == 1
