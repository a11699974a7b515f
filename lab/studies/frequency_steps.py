"""Does SpecFusion help inside a run? `python -m lab.studies.frequency_steps --seeds 24`

Two places besides the finished latent are tried on the demo model.

*Guidance*: the difference of the conditional and the unconditional prediction is scaled by one
factor in the low and another in the high frequencies, in a pre-CFG function of the host.
*Steps*: in image to image, x takes the low frequencies of the base's latent, noised to the step,
before each step (a skip residual by frequency), against SpecFusion of the finished latents.

Every picture is counted, and the spectra of its latents are compared with those of true renders of
the same captions: `evaluation.spectrum_distance`, over rings and channels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

from evaluation.spectrum import plane_spectrum, spectrum_distance

from ..bench.repetition import is_right
from ..pack import Session, run_guider
from ..scenes.wishes import true_render, wish

RADIUS = 0.125  # a quarter of the frequencies of each axis is low
GAINS = ((1.0, 1.0), (1.0, 0.6), (1.0, 1.5), (0.6, 1.0), (0.6, 0.6), (1.5, 1.0))
STRENGTH, REFINE_CFG, REFINE_STEPS = 0.74, 12.0, 50  # of CritiFusion's main pipeline
RINGS = 16


def band_gain(low: float, high: float) -> Callable[[Tensor], Tensor]:
    """Scales low and high frequencies of (B, C, H, W), with a soft edge."""
    from hires_fusion.fusion_ops.spectrum import Band, frequency_fusion

    band = Band(RADIUS, 0.0, "gaussian")
    return lambda x: frequency_fusion(x * low, x * high, band)


def guided(session: Session, low: float, high: float):
    """The MODEL with a guidance that differs by frequency."""
    gain = band_gain(low, high)

    def change(args: dict) -> list[Tensor]:
        cond, uncond, *others = args["conds_out"]
        return [uncond + gain(cond - uncond), uncond, *others]

    model = session.model.clone()
    model.set_model_sampler_pre_cfg_function(change)
    return model


def low_from_reference(low_mix: float, until: float):
    """Before each step down to the time `until`, low frequencies of x from the noised base."""
    from hires_fusion.fusion_ops.spectrum import Band, frequency_fusion
    from hires_fusion.sampling.steps import Transform

    band = Band(RADIUS, low_mix, "gaussian")

    def begin(steps):
        def change(x: Tensor, step: int) -> Tensor:
            if steps.time(step) < until:
                return x
            return frequency_fusion(steps.reference(step), x, band)

        return change

    return Transform(begin)


def refine(session: Session, prompt: str, base: Tensor, seed: int, transform=None) -> Tensor:
    """CritiFusion's second pass, as LATENT samples."""
    import comfy.samplers

    from hires_fusion.sampling.steps import between_steps

    guider = comfy.samplers.CFGGuider(session.model)
    guider.set_conds(session.encode(prompt), session.negative)
    guider.set_cfg(REFINE_CFG)
    sampling = session.model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "karras", REFINE_STEPS)
    sigmas = sigmas[-(int(REFINE_STEPS * STRENGTH) + 1) :]
    sampler = comfy.samplers.sampler_object("dpmpp_2m")
    sampler = between_steps(sampler, transform) if transform else sampler
    noise = torch.randn(base.shape, generator=torch.Generator().manual_seed(seed + 2100))
    return run_guider(guider, noise, base, sampler, sigmas, seed)


def true_latents(session: Session, seeds: range, each: int) -> Tensor:
    """(N, 4, 32, 32): so many true renders of each seed's caption, encoded."""
    side = 8 * session.native
    latents = []
    for seed in tqdm(seeds, desc="true renders", mininterval=20):
        for number in range(each):
            image = torch.from_numpy(true_render(seed, number, side)).float()[None]
            latents.append(session.vae.encode(image))
    return torch.cat(latents)


def methods(session: Session, which: str) -> dict[str, Callable[[str, Tensor, int], Tensor]]:
    """(prompt, the base's latent, seed) -> latent, by name."""
    from hires_fusion.fusion_ops.spectrum import frequency_fusion, published_band
    from hires_fusion.sampling.transforms import skip_residual

    if which == "guidance":
        empty = torch.zeros(1, 4, 32, 32)

        def sampled(gains):
            if gains == (1.0, 1.0):
                return lambda prompt, base, seed: base
            model = guided(session, *gains)
            return lambda prompt, base, seed: session.sample(prompt, empty, seed, model)

        return {f"low {low:g}, high {high:g}": sampled((low, high)) for low, high in GAINS}
    finished: dict[int, Tensor] = {}  # the second pass of a seed, which two methods start from

    def plain(prompt, base, seed):
        if seed not in finished:
            finished[seed] = refine(session, prompt, base, seed)
        return finished[seed]

    def after(band):
        return lambda prompt, base, seed: frequency_fusion(base, plain(prompt, base, seed), band)

    def skipped(prompt, base, seed):
        return refine(session, prompt, base, seed, skip_residual(3.0))

    def during(low_mix, until):
        change = low_from_reference(low_mix, until)
        return lambda prompt, base, seed: refine(session, prompt, base, seed, change)

    return {
        "base": lambda prompt, base, seed: base,
        "refined": plain,
        "SpecFusion after, as published": after(published_band(0.85, 0.5)),
        "SpecFusion after, all low": after(published_band(0.85, 0.5, RADIUS, 0.0)),
        "steps, all low": during(0.0, 0.0),
        "steps, all low, first half": during(0.0, 0.5),
        "steps, Skip Residual of 3": skipped,
    }


@torch.inference_mode()
def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--which", nargs="+", default=["guidance", "steps"])
    p.add_argument("--seeds", type=int, default=24)
    p.add_argument("--first", type=int, default=5000)
    p.add_argument("--true", type=int, default=8, help="true renders of each caption")
    p.add_argument("--threads", type=int, default=2)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    session = Session()
    from ..bench.counter import count_objects

    bases: dict[int, Tensor] = {}
    scaled = session.model.model.process_latent_in
    seeds = range(args.first, args.first + args.seeds)
    true = plane_spectrum(scaled(true_latents(session, seeds, args.true)), RINGS)
    for which in args.which:
        print(f"\n| {which} | exactly one | right colour | mean objects | spectrum, dB | change |")
        print("|---|---|---|---|---|---|")
        for name, method in methods(session, which).items():
            counts, rights, latents, changes = [], 0, [], []
            for seed in tqdm(seeds, desc=name, mininterval=20):
                colour, prompt = wish(seed).colour, wish(seed).prompt
                if seed not in bases:
                    empty = torch.zeros(1, 4, 32, 32)
                    bases[seed] = session.sample(prompt, empty, seed)
                latent = method(prompt, bases[seed], seed)
                found = count_objects(session.decode(latent))[0]
                counts.append(len(found))
                rights += is_right(found, colour)
                latents.append(scaled(latent))
                changes.append(float((latents[-1] - scaled(bases[seed])).std()))
            n = args.seeds
            distance = spectrum_distance(plane_spectrum(torch.cat(latents), RINGS), true)
            one = sum(c == 1 for c in counts)
            print(f"| {name} | {one / n:.1%} | {rights / n:.1%} | {sum(counts) / n:.2f} | "
                  f"{distance:.2f} | {sum(changes) / n:.2f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
