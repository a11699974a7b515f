"""Subject masks and prompts by place on small UNets of the host's own class."""

from __future__ import annotations

import math

import pytest
import torch
from comfy.ldm.modules.attention import optimized_attention

from hires_fusion.fusion_ops.places import is_placed, mean_map, place_mask
from hires_fusion.sampling import by_place
from hires_fusion.sampling.attention import OVERRIDE
from hires_fusion.sampling.by_place import prompts_by_place
from hires_fusion.sampling.denoiser import add_views
from hires_fusion.sampling.networks import network_of
from hires_fusion.sampling.plan import LocalViews
from hires_fusion.sampling.subject import find_subject, subject_tokens, to_pixels

from .attending import FLUX, SD, close, draw, windowed
from .families import FAMILIES, cond, latent, tiny

SDXL = FAMILIES["SDXL"]


def half_mask(height, width, share=0.5):
    mask = torch.zeros(1, height, width)
    mask[..., : round(width * share)] = 1
    return mask


def placed(family, mask, **options):
    ((text, known),) = cond(family, 2)
    return prompts_by_place([[text, known | options]], cond(family, 4), mask)


@pytest.fixture(params=[SD, SDXL], ids=["SD 1.5", "SDXL"])
def family(request):
    return request.param


def test_a_mask_of_one_everywhere_is_the_whole_prompt_to_the_bit(family):
    whole = cond(family, 2)
    assert prompts_by_place(whole, cond(family, 4), torch.ones(1, 8, 8)) is whole


def test_a_mask_of_nothing_is_the_other_text(family):
    model, x = tiny(family), latent(family, 20, 14, batch=2)
    ((_, known),), ((text, _),) = cond(family, 2), cond(family, 4)
    got = draw(family, model, x, positive=placed(family, torch.zeros(1, 8, 8)))
    wanted = draw(family, model, x, positive=[[text, known]])
    assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert not torch.allclose(got, draw(family, model, x), rtol=1e-2)


def test_each_place_attends_to_its_own_text():
    """One layer by hand: the outputs of two attentions, blended by the mask at the layer's size."""
    network = network_of(tiny(SD).model)
    mask = half_mask(8, 8)[None]
    generator = torch.Generator().manual_seed(1)
    q, whole, detail = (torch.randn(2, n, 8, generator=generator) for n in (16, 5, 3))
    options = by_place._divided(network, {}, mask, detail)
    extra = {"n_heads": 2, "attn_precision": None, "activations_shape": [2, 8, 4, 4]}
    (longer,) = options["patches"]["attn2_patch"]
    n, context, value = longer(q, whole, whole, extra)
    assert torch.equal(n, q) and torch.equal(context, torch.cat([whole, detail], 1))
    out = options["patches_replace"]["attn2"]["middle", 0](q, context, value, extra)
    one, other = (optimized_attention(q, text, text, 2) for text in (whole, detail))
    left = torch.arange(16) % 4 < 2
    wanted = torch.where(left[None, :, None], one, other)
    assert torch.allclose(out, wanted, atol=1e-6)


def test_two_prompts_cost_one_evaluation(family):
    model, x = tiny(family), latent(family, 16, 16)
    calls = []
    model.model.diffusion_model.register_forward_pre_hook(
        lambda _, args: calls.append(len(args[0]))
    )
    draw(family, model, x)
    plain = sum(calls)
    calls.clear()
    draw(family, model, x, positive=placed(family, half_mask(16, 16)))
    assert sum(calls) == plain


def test_windows_get_their_part_of_the_mask():
    """Two windows side by side are what the plain host draws of each half with its half mask."""
    model = tiny(SD)
    side = SD.cells
    mask = torch.rand((1, side, 2 * side), generator=torch.Generator().manual_seed(2))
    x = latent(SD, side, 2 * side)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    tiled = add_views(model, local=LocalViews(stride=side, jitter=False))
    got = draw(SD, tiled, x, noise=noise, positive=placed(SD, mask))
    for half in (slice(0, side), slice(side, None)):
        alone = {"noise": noise[..., half], "positive": placed(SD, mask[..., half])}
        wanted = draw(SD, model, x[..., half], **alone)
        assert close(got[..., half], wanted)
    assert not torch.allclose(got, draw(SD, tiled, x, noise=noise), rtol=1e-2)


def test_areas_batches_odd_sizes_and_windowed_attention(family):
    model, x = tiny(family), latent(family, 37, 21, batch=2)
    masks = torch.cat([half_mask(40, 30), 1 - half_mask(40, 30)])
    positive = placed(family, masks, area=(20, 16, 8, 3))
    out = draw(family, windowed(model), x, positive=positive)
    assert out.isfinite().all()
    assert torch.equal(out, draw(family, windowed(model), x, positive=positive)), "run twice"
    swapped = placed(family, masks.flip(0), area=(20, 16, 8, 3))
    assert not torch.equal(out, draw(family, windowed(model), x, positive=swapped))
    alone = placed(family, masks[:1], area=(20, 16, 8, 3))
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    first = draw(family, model, x[:1], positive=alone, noise=noise[:1])
    together = draw(family, model, x, positive=positive, noise=noise)
    assert close(together[:1], first)


def test_the_model_and_the_conditioning_are_as_before(family):
    model, x = tiny(family), latent(family, 20, 14)
    before = draw(family, model, x)
    positive = placed(family, half_mask(20, 14))
    keys = set(positive[0][1])
    draw(family, model, x, positive=positive)
    assert set(positive[0][1]) == keys and not model.wrappers.get("apply_model")
    assert torch.equal(before, draw(family, model, x))


@pytest.mark.parametrize(
    ("detail", "mask", "message"),
    [
        (cond(SD, 4) * 2, half_mask(8, 8), "one text"),
        (cond(SD, 4), 2 * half_mask(8, 8), "between 0 and 1"),
        (cond(SD, 4), half_mask(8, 8) * torch.nan, "between 0 and 1"),
    ],
)
def test_what_cannot_be_placed(detail, mask, message):
    with pytest.raises(ValueError, match=message):
        prompts_by_place(cond(SD, 2), detail, mask)


def test_networks_without_cross_attention_are_refused_before_the_first_step():
    model, x = tiny(FLUX), latent(FLUX, 16, 16)
    model.model.diffusion_model.register_forward_pre_hook(lambda *_: pytest.fail("was called"))
    with pytest.raises(ValueError, match="need the cross-attention"):
        draw(FLUX, model, x, positive=placed(FLUX, half_mask(8, 8)))
    with pytest.raises(ValueError, match="which this model does not have"):
        find_subject(model, x, cond(FLUX, 2), [1])


def test_a_node_that_replaces_cross_attention_is_refused():
    model = tiny(SD).clone()
    model.set_model_attn2_replace(lambda q, k, v, extra: q, "middle", 0)
    with pytest.raises(ValueError, match="replaces the cross-attention"):
        draw(SD, model, latent(SD, 16, 16), positive=placed(SD, half_mask(8, 8)))


def test_the_map_is_the_mean_probability_of_the_words(family):
    model, x = tiny(family), latent(family, 16, 12, batch=2)
    seen, tokens = [], [2, 5]

    def note(function, q, k, v, heads, *args, **kwargs):
        if k.shape[1] == 8:  # eight words
            grid = kwargs["transformer_options"]["activations_shape"][-2:]
            split = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k))
            first, second = split
            logits = first @ second.transpose(-1, -2) / math.sqrt(first.shape[-1])
            share = logits.softmax(-1)[..., tokens].sum(-1).mean(1)
            seen.append(share.unflatten(1, grid))
        return function(q, k, v, heads, *args, **kwargs)

    watched = model.clone()
    watched.model_options["transformer_options"][OVERRIDE] = note
    found = find_subject(watched, x, cond(family, 2), tokens, evaluations=3, seed=5)
    layers = len(network_of(model.model).levels)
    assert len(seen) == 3 * layers and len(seen[0]) == 2
    share = mean_map(seen, (16, 12))
    mask = place_mask(share)
    wanted = torch.where(is_placed(share).view(-1, 1, 1), mask, torch.ones_like(mask))
    assert torch.allclose(found.mask, wanted, atol=1e-4)
    again = find_subject(model, x[1:], cond(family, 2), tokens, evaluations=3, seed=5)
    assert torch.allclose(again.mask, found.mask[1:], atol=1e-3), "whatever the batch"


def test_a_large_picture_is_read_at_native_size():
    model = tiny(SD)
    sizes = set()
    model.model.diffusion_model.register_forward_pre_hook(
        lambda _, args: sizes.add(tuple(args[0].shape[-2:]))
    )
    x = latent(SD, 64, 32)
    found = find_subject(model, x, cond(SD, 2), [2], evaluations=1)
    assert sizes == {(23, 11)} and found.mask.shape == (1, 64, 32)
    assert to_pixels(model, found.mask).shape == (1, 512, 256)
    assert found.mask.min() >= 0 and found.mask.max() <= 1


class Words:
    """A CLIP of one word a token, in windows of six, as the host's tokenizers return them."""

    def tokenize(self, text, return_word_ids=False):
        words = [(hash(word) % 1000, 1.0, n) for n, word in enumerate(text.lower().split(), 1)]
        windows = [words[i : i + 4] for i in range(0, len(words), 4)] or [[]]
        mark = (0, 1.0, 0)
        full = [[mark, *window, mark] + [mark] * (4 - len(window)) for window in windows]
        return {"l": full, "g": full}


def test_which_tokens_are_the_subjects():
    prompt = "a red balloon over the red mountains and a lake"
    assert subject_tokens(Words(), prompt, "balloon") == [3]
    assert subject_tokens(Words(), prompt, "red") == [2, 8]
    assert subject_tokens(Words(), prompt, " Red balloon , lake") == [2, 3, 14]


def test_the_node_on_the_demo_model():
    from hires_fusion.demo.loader import load_demo_model
    from hires_fusion.nodes.subject_mask import SubjectMask

    model, clip, _ = load_demo_model()
    prompt = "a blue sailing boat on a calm sea at sunset"
    assert subject_tokens(clip, prompt, "blue sailing boat") == [2, 3, 4]
    assert subject_tokens(clip, prompt, "sea, boat") == [4, 8]
    samples = {"samples": torch.randn(2, 4, 32, 40)}
    mask, report = SubjectMask.execute(model, clip, samples, prompt, "boat", 1, 0).result
    assert mask.shape == (2, 256, 320) and len(report.splitlines()) == 2
    both = SubjectMask.execute(model, clip, samples, prompt, "boat", 1, 0).result
    assert torch.equal(mask, both[0]) and report == both[1]


@pytest.mark.parametrize(
    ("prompt", "subjects", "message"),
    [
        ("a red balloon over mountains", "", "'red', 'balloon', 'mountains'"),
        ("a red balloon over mountains", " , ", "say in 'subjects'"),
        ("a red balloon over mountains", "castle", "'castle' is not in the prompt.*'balloon'"),
        ("", "balloon", "the prompt is empty"),
    ],
)
def test_subjects_that_are_not_there_are_offered_not_guessed(prompt, subjects, message):
    with pytest.raises(ValueError, match=message):
        subject_tokens(Words(), prompt, subjects)
