"""Windowed self-attention inside the host's networks, see `fusion_ops.attention`.

Nothing is kept on a MODEL but the settings. What one run draws from lives in its options while it
runs, what one call needs in that call's options. UNets say which attention is a layer's self-
attention, and hand it over (`attn1` replace patches); transformers have one sequence, and an
override of their attention function finds the picture's tokens in it. Both call the function that
the host or another node has put there, on windows instead of on the picture.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..fusion_ops.attention import Windows, picture_windows, windowed_attention
from .cuts import origin
from .networks import Grid, Sequence, Transformer, UNet, network_of
from .run import Run
from .span import WHOLE, Span

KEY = "hires_fusion_attention"
RUN, CALL = f"{KEY}_run", f"{KEY}_call"
OVERRIDE = "optimized_attention_override"
# Patches of a layer's self-attention that leave its tokens where they are.
HARMLESS = ("hypernetwork_patch",)


@dataclass(frozen=True)
class WindowedAttention:
    """Settings, immutable, as hosts either copy or share them between clones.

    Attributes:
        query_block: side of a block of queries as a share of the window, above 0 to 1.
        window: side of a window of keys and values, in native sides, 1 or more.
        jitter: shift the blocks at random in every step.
        span: the part of the schedule that has windows.
        native: native size in pixels, 0 for the model family's.
    """

    query_block: float = 0.5
    window: float = 1.0
    jitter: bool = True
    span: Span = WHOLE
    native: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.query_block <= 1 and self.window >= 1):
            raise ValueError(
                f"query_block {self.query_block:g} and window {self.window:g}: blocks are above 0 "
                "and at most 1 window, windows at least 1 native side"
            )

    def side(self, network: UNet | Transformer, model: Any) -> int:
        """Side of a window, in tokens of a network's uppermost level."""
        return round(self.window * network.native(model, self.native))


def add_windowed_attention(model: ModelPatcher, settings: WindowedAttention) -> ModelPatcher:
    """A clone of the MODEL with windows in its self-attention.

    Raises:
        ValueError: the place of the picture's tokens is not known in this kind of network.
    """
    network_of(model.model)
    model = model.clone()
    model.model_options["transformer_options"][KEY] = settings
    for kind, wrapper in WRAPPERS.items():
        if not model.get_wrappers(kind, KEY):
            model.add_wrapper_with_key(kind, KEY, wrapper)
    return model


def check_run(executor, model: ModelPatcher, noise_shape, conds, *args, **kwargs) -> Any:
    """PREPARE_SAMPLING wrapper: refuses what windows cannot be made of, before the first step."""
    options = kwargs["model_options"]["transformer_options"]
    network = network_of(model.model)
    if len(noise_shape) < 4:
        raise ValueError(
            "windowed attention needs latents with height and width; packed latents of several "
            "parts (audio with video) have none: use the model without the node"
        )
    if options[KEY].side(network, model.model) < max(network.grid(noise_shape[-2:])):
        network.check(noise_shape, conds)
        _check_patches(options)
    return executor(model, noise_shape, conds, *args, **kwargs)


def _check_patches(options: dict[str, Any]) -> None:
    """Raise ValueError if another node has changed what the tokens of self-attention are."""
    patches = options.get("patches", {})
    found = [p for p in patches.get("attn1_patch", []) if type(p).__name__ not in HARMLESS]
    found += patches.get("post_input", [])
    found += options.get("patches_replace", {}).get("attn1", {}).values()
    if found:
        raise ValueError(
            f"{origin(found[0])} changes the self-attention or its tokens, so that windowed "
            "attention doesn't know their places: take out the node that sets it (self-attention "
            "guidance, HyperTile, token merging and the like), or Windowed Attention"
        )


def start_run(executor, guider, sigmas: Tensor, extra_args: dict, *args, **kwargs) -> Tensor:
    """SAMPLER_SAMPLE wrapper: what the shifts of the blocks are drawn from."""
    options = extra_args["model_options"]["transformer_options"]
    options[RUN] = Run(extra_args.get("seed") or 0, sigmas)
    try:
        return executor(guider, sigmas, extra_args, *args, **kwargs)
    finally:
        options.pop(RUN, None)


def prepare_call(
    executor,
    x: Tensor,
    t: Tensor,
    c_concat=None,
    c_crossattn=None,
    control=None,
    transformer_options: dict | None = None,
    **kwargs,
) -> Tensor:
    """APPLY_MODEL wrapper: gives one call of the network the windows of its own picture."""
    options = {**(transformer_options or {})}
    settings: WindowedAttention = options[KEY]
    model, sigma = executor.class_obj, float(t.flatten()[0])
    network = network_of(model)
    side = settings.side(network, model)
    if settings.span.holds(model.model_sampling, sigma) and side < max(network.grid(x.shape[-2:])):
        call = Call(settings, side, options.get(RUN) or Run(), sigma)
        if isinstance(network, UNet):
            _hand_over(call, network, options)
        else:
            sequence = network.sequence(x, c_crossattn, kwargs.get("ref_latents") or [])
            options[CALL] = call, sequence
            _override(options)
    return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)


def override_again(executor, *args, **kwargs) -> Tensor:
    """DIFFUSION_MODEL wrapper: hosts may set an override of their own before every call."""
    for options in (*args, kwargs.get("transformer_options")):
        if isinstance(options, dict) and CALL in options:
            _override(options)
    return executor(*args, **kwargs)


class Call:
    """The windows of one call of the network; pictures of one size and level have the same."""

    def __init__(self, settings: WindowedAttention, side: int, run: Run, sigma: float):
        self.settings = settings
        self.side = side
        self.run = run
        self.sigma = sigma
        self._windows: dict[tuple[Grid, int], Windows | None] = {}

    def windows(self, grid: Grid, level: int, device: torch.device) -> Windows | None:
        """Windows of a picture of tokens, None where one window is all of it."""
        if (grid, level) not in self._windows:
            side = math.ceil(self.side / 2**level)
            block = max(round(self.settings.query_block * side), 1)
            rng = self.run.rng(self.sigma, f"/{level}") if self.settings.jitter else None
            found = picture_windows(grid, side, block, rng)
            self._windows[grid, level] = found and found.to(device)
        return self._windows[grid, level]


def _hand_over(call: Call, network: UNet, options: dict[str, Any]) -> None:
    """Make a UNet's layers ask us for their self-attention, but those that ask another already."""

    def asked(level: int) -> Callable[..., Tensor]:
        def attend(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
            def plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
                precision = extra["attn_precision"]
                return optimized_attention(
                    q, k, v, extra["n_heads"], attn_precision=precision, transformer_options=extra
                )

            grid = tuple(extra["activations_shape"][-2:])
            windows = call.windows(grid, level, q.device)
            if windows is None or not q.shape[1] == k.shape[1] == math.prod(grid):
                return plain(q, k, v)
            return windowed_attention(plain, q, k, v, windows)

        return attend

    replaced = options.get("patches_replace", {})
    ours = {name: asked(level) for name, level in network.levels.items()}
    attn1 = ours | replaced.get("attn1", {})
    options["patches_replace"] = {**replaced, "attn1": attn1}


class Override:
    """The host's attention function on windows, where the tokens are those of the picture.

    Called as the host calls its functions, in both layouts: (B, N, heads * width), or with
    `skip_reshape` (B, heads, N, width), and the same for what comes out.
    """

    def __init__(self, call: Call, sequence: Sequence, before: Callable[..., Tensor] | None):
        self.call = call
        self.sequence = sequence
        self.before = before

    def __call__(self, function, q, k, v, heads, mask=None, *args, **kwargs) -> Tensor:
        plain = functools.partial(self.before, function) if self.before else function
        apart = kwargs.get("skip_reshape", False)
        tokens = [x.shape[2 if apart else 1] for x in (q, k, v)]
        first = self.sequence.first(tokens[0])
        windows = None
        if first is not None and len(set(tokens)) == 1:
            windows = self.call.windows(self.sequence.grid, 0, q.device)
        if windows is None:
            return plain(q, k, v, heads, mask, *args, **kwargs)
        out_apart = kwargs.get("skip_output_reshape", False)

        def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
            q, k, v = (x.transpose(1, 2) if apart else x for x in (q, k, v))
            out = plain(q, k, v, heads, mask, *args, **kwargs)
            return out.transpose(1, 2) if out_apart else out

        q, k, v = (x.transpose(1, 2) if apart else x for x in (q, k, v))
        out = windowed_attention(attend, q, k, v, windows, first, _four_axes(mask))
        return out.transpose(1, 2) if out_apart else out


def _override(options: dict[str, Any]) -> None:
    """Put a call's override in its options, around the one that is there."""
    there = options.get(OVERRIDE)
    if not isinstance(there, Override):
        options[OVERRIDE] = Override(*options[CALL], there)


def _four_axes(mask: Tensor | None) -> Tensor | None:
    """A mask as (B, heads, queries, keys)."""
    while mask is not None and mask.ndim < 4:
        mask = mask.unsqueeze(0 if mask.ndim == 2 else 1)
    return mask


WRAPPERS = {
    WrappersMP.PREPARE_SAMPLING: check_run,
    WrappersMP.SAMPLER_SAMPLE: start_run,
    WrappersMP.APPLY_MODEL: prepare_call,
    WrappersMP.DIFFUSION_MODEL: override_again,
}
