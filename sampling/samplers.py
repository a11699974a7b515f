"""How each of the host's samplers lets its x be changed between steps, as a table.

A transform of x at the start of a step is right if the sampler evaluates the model on the changed
x and goes on from it. The samplers of k-diffusion hand their own tensor to the model, so x can be
changed in place in that call; which call of a step it is, and how many there are, is what the
table knows. What a sampler keeps of earlier steps says how far the result is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.k_diffusion.sampling as k_diffusion
from comfy.samplers import KSAMPLER
from torch import Tensor

# (sigmas of the run, step, the sampler's options) -> model calls of that step
Calls = Callable[[Tensor, int, dict[str, Any]], int]


def one(sigmas: Tensor, step: int, options: dict[str, Any]) -> int:
    return 1


def two(sigmas: Tensor, step: int, options: dict[str, Any]) -> int:
    """Second order, but for the step to zero."""
    return 2 if sigmas[step + 1] > 0 else 1


def three(sigmas: Tensor, step: int, options: dict[str, Any]) -> int:
    return 3 if sigmas[step + 1] > 0 else 1


def ancestral(sigmas: Tensor, step: int, options: dict[str, Any]) -> int:
    """Second order, but where nothing is left before the noise is added."""
    eta = options.get("eta", 1.0)
    down, _ = k_diffusion.get_ancestral_step(sigmas[step], sigmas[step + 1], eta=eta)
    return 1 if down == 0 else 2


def look_ahead(sigmas: Tensor, step: int, options: dict[str, Any]) -> int:
    """Heun++: looks two sigmas ahead, but not beyond the last one."""
    if sigmas[step + 1] == sigmas[-1]:
        return 1
    return 2 if sigmas[step + 2] == sigmas[-1] else 3


def corrected(sigmas: Tensor, step: int, options: dict[str, Any]) -> int:
    """Predict, evaluate, correct, evaluate; nothing is corrected in the first step."""
    return 2 if step > 0 and options.get("corrector_order", 4) > 0 else 1


# What the steps after a change still use of the steps before it.
NOTHING = "nothing"
X0 = "x0"
SLOPES = "slopes"


@dataclass(frozen=True)
class Access:
    """Where a sampler's x can be changed.

    Attributes:
        keeps: NOTHING: each step is exactly that of the changed x. X0, SLOPES: so is its first
            order; the higher orders also use x0, or (x - x0) / sigma, of the steps before.
        calls: model calls of a step.
        last: the last call of a step gets the finished x, not the first one.
    """

    keeps: str = NOTHING
    calls: Calls = one
    last: bool = False


OWN_STEPS = "chooses its own steps, not those of the sigmas"
CORRECTED = "computes its picture anew after the model has seen it, which undoes any change"

# Access, or why there is none. The "_gpu" variants are the same samplers.
SAMPLERS: dict[str, Access | str] = {
    "euler": Access(),
    "euler_ancestral": Access(),
    "euler_cfg_pp": Access(),
    "euler_ancestral_cfg_pp": Access(),
    "ddpm": Access(),
    "lcm": Access(),
    "heun": Access(calls=two),
    "heunpp2": Access(calls=look_ahead),
    "exp_heun_2_x0": Access(calls=two),
    "exp_heun_2_x0_sde": Access(calls=two),
    "dpm_2": Access(calls=two),
    "dpm_2_ancestral": Access(calls=ancestral),
    "dpmpp_2s_ancestral": Access(calls=ancestral),
    "dpmpp_2s_ancestral_cfg_pp": Access(calls=ancestral),
    "dpmpp_sde": Access(calls=two),
    "seeds_2": Access(calls=two),
    "seeds_3": Access(calls=three),
    "dpmpp_2m": Access(X0),
    "dpmpp_2m_cfg_pp": Access(X0),
    "dpmpp_2m_sde": Access(X0),
    "dpmpp_2m_sde_heun": Access(X0),
    "dpmpp_3m_sde": Access(X0),
    "res_multistep": Access(X0),
    "res_multistep_cfg_pp": Access(X0),
    "res_multistep_ancestral": Access(X0),
    "res_multistep_ancestral_cfg_pp": Access(X0),
    "er_sde": Access(X0),
    "sa_solver_pece": Access(X0, corrected, last=True),
    "lms": Access(SLOPES),
    "ipndm": Access(SLOPES),
    "ipndm_v": Access(SLOPES),
    "deis": Access(SLOPES),
    "gradient_estimation": Access(SLOPES),
    "gradient_estimation_cfg_pp": Access(SLOPES),
    "dpm_fast": OWN_STEPS,
    "dpm_adaptive": OWN_STEPS,
    "sa_solver": f"{CORRECTED} (sa_solver_pece does not)",
    "uni_pc": CORRECTED,
    "uni_pc_bh2": CORRECTED,
}
FIX = "choose euler, ddim, dpmpp_2m, heun or another of the host's that steps along the sigmas"


def access(sampler: Any) -> Access:
    """How to change a SAMPLER's x between its steps.

    Raises:
        ValueError: it can't be changed there, or the sampler isn't the host's and so not known:
            one that corrects its picture would run, but without the change. Says the fix.
    """
    name = _name(sampler)
    known = SAMPLERS.get(name)
    if known is None:
        raise ValueError(
            f"the sampler '{name}' is not one of ComfyUI's, so nothing is known of its picture "
            f"between steps: {FIX}"
        )
    if isinstance(known, str):
        raise ValueError(f"the sampler '{name}' {known}: {FIX}")
    if sampler.extra_options.get("s_churn", 0) > 0:
        raise ValueError(
            f"the sampler '{name}' adds noise of its own before each step: set s_churn to 0"
        )
    return known


def _name(sampler: Any) -> str:
    """A key of SAMPLERS if the SAMPLER is the host's, else whatever its author calls it."""
    function = getattr(sampler, "sampler_function", None)
    name = getattr(function, "__name__", type(sampler).__name__)
    short = name.removeprefix("sample_").removesuffix("_function").removesuffix("_gpu")
    short = short.replace("unipc", "uni_pc")
    if isinstance(SAMPLERS.get(short), Access) and not (
        type(sampler) is KSAMPLER and getattr(k_diffusion, name, None) is function
    ):
        return f"{name} of {getattr(function, '__module__', '?')}"
    if short == "sa_solver" and sampler.extra_options.get("use_pece"):
        return "sa_solver_pece"
    return short
