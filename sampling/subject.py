"""Where a picture has what a word of its prompt names, read from a UNet's cross-attention."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import comfy.sample
import comfy.samplers
import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..fusion_ops.places import is_placed, mean_map, place_mask, word_share
from .latents import cell_pixels, native_cells, noised
from .networks import UNet, network_of

KEY = "hires_fusion_subject"
# The part of the schedule where words find their places: before it there is only noise, after it
# only texture.
MIDDLE = (0.5, 0.8)
# A latent that is so much larger than a native one is reduced before it is read.
LARGE = 1.1
# Words that no picture shows.
SMALL_WORDS = frozenset(
    (
        *("a", "an", "the", "of", "in", "on", "at", "by", "with", "and", "or", "to", "from"),
        *("over", "under", "into", "as", "is", "are", "be", "its", "his", "her", "their"),
        *("very", "some", "many", "no", "not", "for", "near", "behind", "before", "during"),
    )
)


class Found(NamedTuple):
    """Attributes: mask: (B, h, w) in 0..1, in cells of the latent; placed: (B,), whether the
    subject has a place in each picture; where not, its mask is 1."""

    mask: Tensor
    placed: Tensor


def subject_tokens(clip: Any, prompt: str, subjects: str) -> list[int]:
    """Which tokens of an encoded prompt are those of the subjects.

    Args:
        clip: the CLIP that encodes the prompt.
        prompt: all of it.
        subjects: words or phrases of the prompt, separated by commas.

    Raises:
        ValueError: there are none, or one is not in the prompt; says which words are.
    """
    wanted = [part.strip() for part in subjects.split(",") if part.strip()]
    if not wanted:
        raise ValueError(
            "say in 'subjects' what the mask shall show, in words of the prompt: "
            f"{_offer(prompt)}? Several are separated by commas; Decompose Prompt finds them with "
            "a language model"
        )
    whole = clip.tokenize(prompt, return_word_ids=True)
    found: set[int] = set()
    for subject in wanted:
        part = clip.tokenize(subject, return_word_ids=True)
        places = [_places(whole[name], part[name]) for name in whole]
        if not all(places):
            raise ValueError(
                f"'{subject}' is not in the prompt: write it as the prompt does, such as "
                f"{_offer(prompt)}"
            )
        found.update(*places)
    return sorted(found)


def _offer(prompt: str) -> str:
    """The prompt's words that may be subjects, for a message."""
    words = dict.fromkeys(re.findall(r"[^\W\d_]+(?:-[^\W\d_]+)*", prompt))
    shown = [f"'{word}'" for word in words if word.lower() not in SMALL_WORDS]
    return ", ".join(shown[:12]) or "none, the prompt is empty"


def _places(windows: list[list[tuple]], part: list[list[tuple]]) -> set[int]:
    """Where the tokens of a text stand in those of another, counted through its windows."""
    # (token, weight, number of the word); marks and padding have the number 0.
    tokens = [token[0] if token[2] else None for window in windows for token in window]
    wanted = [token[0] for window in part for token in window if token[2]]
    size = len(wanted)
    starts = [i for i in range(len(tokens) - size + 1) if size and tokens[i : i + size] == wanted]
    return {start + i for start in starts for i in range(size)}


def find_subject(
    model: ModelPatcher,
    latent: Tensor,
    positive: list,
    tokens: list[int],
    evaluations: int = 4,
    seed: int = 0,
    threshold: float = 1.0,
    softness: float = 0.5,
) -> Found:
    """Read a finished picture with some evaluations of the model at middle noise.

    Args:
        model: a MODEL with cross-attention, such as SDXL.
        latent: LATENT samples, (B, C, H, W), drawn or encoded from any picture.
        positive: CONDITIONING of the prompt.
        tokens: of `subject_tokens`.
        evaluations: at noise levels spread over MIDDLE.
        seed: of the noise, which is the same for every picture of a batch.
        threshold, softness: see `fusion_ops.places.place_mask`.

    Raises:
        ValueError: the model has no cross-attention.
    """
    share = read_share(model, latent, positive, tokens, evaluations, seed)
    found = mask_of(share, threshold, softness)
    mask = F.interpolate(
        found.mask[:, None], latent.shape[-2:], mode="bilinear", align_corners=False
    )
    return Found(mask[:, 0], found.placed)


def read_share(
    model: ModelPatcher,
    latent: Tensor,
    positive: list,
    tokens: list[int],
    evaluations: int,
    seed: int,
    span: tuple[float, float] = MIDDLE,
) -> Tensor:
    """How much attention each place gives to the tokens, (B, h, w), in cells of a native picture.

    Mean over evaluations at `span` of the schedule, over layers and heads.
    """
    network = network_of(model.model)
    if not isinstance(network, UNet) or latent.ndim != 4:
        raise ValueError(
            "Subject Mask reads the cross-attention of SD 1.5, SD 2 and SDXL, which this model "
            "does not have: paint the mask, or take it from a segmentation node"
        )
    small = _native(model.model, latent)
    maps: list[Tensor] = []
    reader = model.clone()
    reader.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, _reading(network, tokens, maps))
    _evaluate(reader, small, positive, torch.linspace(*span, evaluations + 2)[1:-1], seed)
    return mean_map(maps, tuple(small.shape[-2:]))


def mask_of(share: Tensor, threshold: float = 1.0, softness: float = 0.5) -> Found:
    """The mask of a share of attention, 1 everywhere in a picture where it has no place."""
    mask = place_mask(share, threshold, softness)
    placed = is_placed(share)
    return Found(torch.where(placed.view(-1, 1, 1), mask, torch.ones_like(mask)), placed)


def to_pixels(model: ModelPatcher, mask: Tensor) -> Tensor:
    """A mask of cells as the MASK of the picture, (B, H, W)."""
    return F.interpolate(
        mask[:, None], scale_factor=cell_pixels(model.model), mode="bilinear", align_corners=False
    )[:, 0]


def _native(model: Any, latent: Tensor) -> Tensor:
    """The latent, reduced to the model's native area where it is larger."""
    ratio = native_cells(model) / math.sqrt(math.prod(latent.shape[-2:]))
    if ratio * LARGE >= 1:
        return latent
    size = [max(round(side * ratio), 1) for side in latent.shape[-2:]]
    return F.interpolate(latent, size, mode="bilinear", antialias=True, align_corners=False)


def _evaluate(
    model: ModelPatcher, latent: Tensor, positive: list, places: Tensor, seed: int
) -> None:
    """Call the denoiser on a picture under the noise of some places of the schedule."""
    latent = comfy.sample.fix_empty_latent_channels(model, latent)
    shape = (1, *latent.shape[1:])
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).expand_as(latent)
    sampling = model.get_model_object("model_sampling")
    levels = [float(sampling.percent_to_sigma(place)) for place in places.tolist()]
    sigmas = torch.tensor([*levels, 0.0])

    def each(denoiser, x, sigmas, extra_args=None, callback=None, disable=None) -> Tensor:
        clean = model.model.process_latent_in(latent).to(x)
        for sigma in sigmas[:-1]:
            noisy = noised(sampling, sigma, noise.to(x), clean)
            denoiser(noisy, sigma.expand(len(x)), **(extra_args or {}))
        return clean

    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, positive)
    guider.set_cfg(1.0)
    sampler = comfy.samplers.KSAMPLER(each)
    guider.sample(noise, latent, sampler, sigmas, disable_pbar=True, seed=seed)


def _reading(network: UNet, tokens: list[int], maps: list[Tensor]) -> Any:
    """An APPLY_MODEL wrapper that notes how much attention every place gives to the tokens."""

    def read(
        executor,
        x,
        t,
        c_concat=None,
        c_crossattn=None,
        control=None,
        transformer_options=None,
        **kwargs,
    ) -> Tensor:
        options = {**(transformer_options or {})}
        replaced = options.get("patches_replace", {})
        before = replaced.get("attn2", {})
        asked = {name: noting(before.get(name)) for name in network.levels}
        options["patches_replace"] = {**replaced, "attn2": before | asked}
        return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)

    def noting(before: Any) -> Any:
        def attend(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
            halves = extra["cond_or_uncond"]
            chosen = halves.index(0) if 0 in halves else 0
            pair = (part.chunk(len(halves))[chosen] for part in (q, k))
            share = word_share(*pair, extra["n_heads"], tokens)
            grid = tuple(extra["activations_shape"][-2:])
            if share.shape[1] == math.prod(grid):
                maps.append(share.unflatten(1, grid).cpu())
            if before is not None:
                return before(q, k, v, extra)
            precision = extra["attn_precision"]
            return optimized_attention(
                q, k, v, extra["n_heads"], attn_precision=precision, transformer_options=extra
            )

        return attend

    return read
