"""The graphs for real checkpoints: `python -m tools.graph` writes their files, of both formats.

`tools.families` is the table of models, GRAPHS that of graphs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tools.families import FAMILIES, SDXL_REFINER, TILE, Family, Loader, checkpoint
from tools.server import EXAMPLE

TEXT = "a photo of a red lighthouse on a cliff above the sea at sunset, small houses below it"
NEGATIVE = "blurry, low quality, watermark"
PICTURE = EXAMPLE
SEED = 7
MODEL, PROMPT, NATIVE, LARGER = "1 Model", "2 Prompt", "3 Native picture", "4 Larger"
Link = list


class Maker:
    """A prompt in the making."""

    def __init__(self) -> None:
        self.prompt: dict[str, dict[str, Any]] = {}

    def add(self, kind: str, title: str, group: str = "", **inputs: Any) -> str:
        """A node; its id. `group` begins with it."""
        meta = {"title": title} | ({"group": group} if group else {})
        number = str(len(self.prompt) + 1)
        self.prompt[number] = {"class_type": kind, "inputs": inputs, "_meta": meta}
        return number

    def load(self, loader: Loader, group: str = "") -> str:
        named = {file.widget: file.name for file in loader.files}
        number = self.add(loader.kind, loader.title, group, **named, **dict(loader.widgets))
        self.prompt[number]["_meta"]["models"] = [file.entry for file in loader.files]
        return number

    def say(self, number: str, note: str) -> None:
        self.prompt[number]["_meta"]["note"] = note


class Start(Maker):
    """Model and prompts of a family: `model`, `clip`, `vae`, `positive`, `negative` are links."""

    def __init__(self, family: Family, what: str, three: tuple[str, str, str]):
        super().__init__()
        self.family = family
        first, *others = family.loaders
        number = self.load(first, MODEL)
        self.model, self.clip, self.vae = [number, 0], [number, 1], [number, 2]
        if others:
            self.clip, self.vae = ([self.load(loader), 0] for loader in others)
        if family.shift:
            kind = "ModelSamplingAuraFlow"
            self.model = [self.add(kind, "Shift", model=self.model, shift=family.shift), 0]
        self.positive = self.text("Prompt", TEXT, PROMPT)
        if family.guidance:
            options = {"conditioning": self.positive, "guidance": family.guidance}
            self.positive = [self.add("FluxGuidance", "Guidance", **options), 0]
        if family.cfg == 1:
            zero = self.add("ConditioningZeroOut", "No negative prompt", conditioning=self.positive)
            self.negative = [zero, 0]
        else:
            self.negative = self.text("Negative prompt", NEGATIVE)
        changes = "\n".join(f"{i}. {line}" for i, line in enumerate(three, 1))
        self.say(
            number,
            f"## Three things to change\n\n{what}\n\n{changes}\n\n"
            f"Settings of the native picture: {family.source}.",
        )

    def text(self, title: str, text: str, group: str = "", clip: Link | None = None) -> Link:
        return [self.add("CLIPTextEncode", title, group, text=text, clip=clip or self.clip), 0]

    def empty(self, group: str = NATIVE) -> Link:
        sides = {"width": self.family.size, "height": self.family.size}
        return [self.add(self.family.latent, "Native size", group, **sides, batch_size=1), 0]

    def sample(self, latent: Link, **changed: Any) -> Link:
        """Sample the native picture."""
        family = self.family
        settings = {
            **{"model": self.model, "seed": SEED, "steps": family.steps, "cfg": family.cfg},
            **{"sampler_name": family.sampler, "scheduler": family.scheduler},
            **{"positive": self.positive, "negative": self.negative},
            **{"latent_image": latent, "denoise": 1.0},
        }
        return [self.add("KSampler", "Native sampling", **settings | changed), 0]

    def enlarge(self, latent: Link, preset: str, **changed: Any) -> Link:
        family = self.family
        settings = {
            **{"model": self.model, "positive": self.positive, "negative": self.negative},
            **{"samples": latent, "scale": family.scale, "preset": preset, "noise_seed": SEED},
            **{"steps": 0, "cfg": family.upscale_cfg, "sampler_name": "euler"},
            **{"scheduler": "ddim_uniform" if family.scheduler == "normal" else "simple"},
            "vae": self.vae,
        }
        return [self.add("HRF_ProgressiveUpscale", "Larger", LARGER, **settings | changed), 0]

    def save(self, latent: Link, name: str) -> dict:
        decoded = self.add("VAEDecode", "Decode", samples=latent, vae=self.vae)
        self.add("SaveImage", "final", images=[decoded, 0], filename_prefix=f"hires_fusion/{name}")
        return self.prompt


def wanted(family: Family) -> tuple[str, str, str]:
    """The three things to change, of most graphs."""
    return (
        "**Prompt**: what to draw",
        f"**Native size**: another shape of about {family.size} x {family.size} pixels",
        f"**scale** of *Larger*: {family.scale:g} makes {family.size * family.scale:g} pixels",
    )


def text_to_4k(family: Family, preset: str, name: str) -> dict:
    what = "A picture of the size that the model knows, then four times the detail and more."
    start = Start(family, what, wanted(family))
    return start.save(start.enlarge(start.sample(start.empty()), preset), name)


def enlarge_picture(family: Family, preset: str, name: str) -> dict:
    start = Start(
        family,
        "A picture of yours is brought to the size that the model knows, and drawn larger.",
        (
            "**Your picture**, and in **Prompt** what it shows",
            "**scale** of *Larger*",
            "**strength** of *Larger*: 0.2 keeps the picture, 0.5 draws it anew",
        ),
    )
    image = start.add("LoadImage", "Your picture", NATIVE, image=PICTURE)
    area = round(family.size**2 / 2**20, 2)
    options = {"upscale_method": "lanczos", "megapixels": area}
    scaled = start.add("ImageScaleToTotalPixels", "Native area", image=[image, 0], **options)
    latent = start.add("VAEEncode", "Encode", pixels=[scaled, 0], vae=start.vae)
    larger = start.enlarge([latent, 0], preset, strength=0.3, image=[scaled, 0])
    return start.save(larger, name)


def demofusion(family: Family, preset: str, name: str) -> dict:
    what = "[DemoFusion](https://arxiv.org/abs/2311.16973) with the settings of its examples: "
    start = Start(family, what + "50 DDIM steps at cfg 7.5 in every stage.", wanted(family))
    published = {"steps": 50, "cfg": 7.5}
    native = start.sample(start.empty(), scheduler="ddim_uniform", **published)
    return start.save(start.enlarge(native, preset, **published), name)


def repldm(family: Family, preset: str, name: str) -> dict:
    what = "RepLDM: *Attentive guidance* in the native picture, then the end of one schedule."
    start = Start(family, what, wanted(family))
    empty = start.empty()
    plain = start.add("KSamplerSelect", "Sampler", sampler_name="euler")
    guided = start.add("HRF_AttentiveGuidance", "Attentive guidance", sampler=[plain, 0])
    schedule = {"model": start.model, "scheduler": "ddim_uniform", "steps": 50, "denoise": 1.0}
    sigmas = start.add("BasicScheduler", "Schedule", **schedule)
    settings = {
        **{"model": start.model, "add_noise": True, "noise_seed": SEED, "cfg": 7.5},
        **{"positive": start.positive, "negative": start.negative},
        **{"sampler": [guided, 0], "sigmas": [sigmas, 0], "latent_image": empty},
    }
    native = start.add("SamplerCustom", "Native sampling", **settings)
    return start.save(start.enlarge([native, 0], preset, steps=50, cfg=7.5), name)


def controlnet(family: Family, preset: str, name: str) -> dict:
    start = Start(
        family,
        "A ControlNet for tiles holds on to your picture, in the native one and in every stage.",
        (
            "**Your picture**, and in **Prompt** what to make of it",
            "**strength** of *Apply ControlNet*: less lets the prompt change more",
            "**scale** of *Larger*",
        ),
    )
    net = start.load(Loader("ControlNetLoader", "ControlNet", (TILE,)), "2b Your picture")
    image = start.add("LoadImage", "Your picture", image=PICTURE)
    sides = {"width": family.size, "height": family.size}
    options = {"upscale_method": "lanczos", **sides, "crop": "center"}
    scaled = start.add("ImageScale", "Native size of it", image=[image, 0], **options)
    both = {"positive": start.positive, "negative": start.negative, "control_net": [net, 0]}
    options = {"strength": 0.6, "start_percent": 0.0, "end_percent": 1.0, "vae": start.vae}
    held = start.add("ControlNetApplyAdvanced", "Apply", **both, image=[scaled, 0], **options)
    start.positive, start.negative = [held, 0], [held, 1]
    return start.save(start.enlarge(start.sample(start.empty()), preset), name)


def regions(family: Family, preset: str, name: str) -> dict:
    start = Start(
        family,
        "Two prompts: one for the whole, one for a place. Every view gets its own part of them.",
        (
            "**Prompt** and **Prompt of the place**",
            "**Place**: x, y, width and height as shares of the picture",
            "**scale** of *Larger*",
        ),
    )
    local = start.text("Prompt of the place", "a white sailing boat on the water")
    place = {"width": 0.4, "height": 0.4, "x": 0.55, "y": 0.6, "strength": 1.0}
    kind = "ConditioningSetAreaPercentage"
    area = start.add(kind, "Place", conditioning=local, **place)
    both = {"conditioning_1": start.positive, "conditioning_2": [area, 0]}
    start.positive = [start.add("ConditioningCombine", "Both prompts", **both), 0]
    return start.save(start.enlarge(start.sample(start.empty()), preset), name)


def fusion(family: Family, preset: str, name: str) -> dict:
    start = Start(
        family,
        "The base draws, the refiner draws the last 30 % again, and both latents are mixed.",
        (
            "**Prompt**, in both places",
            "**denoise** of *Refining*: how much the refiner may change",
            "**ratio** of *Mix*: 0 is the base's picture, 1 the refiner's",
        ),
    )
    refiner = start.load(checkpoint(SDXL_REFINER, "Refiner"), "1b Refiner")
    clip = [refiner, 1]
    positive = start.text("Prompt for the refiner", TEXT, clip=clip)
    negative = start.text("Negative prompt for the refiner", NEGATIVE, clip=clip)
    base = start.sample(start.empty())
    again = {"model": [refiner, 0], "positive": positive, "negative": negative, "steps": 15}
    refined = start.sample(base, **again, denoise=0.3, seed=SEED + 1)
    start.prompt[refined[0]]["_meta"]["title"] = "Refining"
    options = {"base": base, "refined": refined, "mode": "blend", "ratio": 0.5}
    mixed = start.add("HRF_AdaptiveGlobalFusion", "Mix", "4 Fused", **options)
    return start.save([mixed, 0], name)


def critifusion(family: Family, preset: str, name: str) -> dict:
    """Three nodes over twelve: two pictures, two decoders, the critic and its report."""
    start = Start(
        family,
        "Language models look at the first picture and write a better prompt; the second picture "
        "keeps the first one's large shapes.",
        (
            "**Your prompt**",
            "**Provider**: who is asked; see its help (?) for the key",
            "**denoise** of *Drawn again*",
        ),
    )
    text = start.add("PrimitiveStringMultiline", "Your prompt", value=TEXT)
    start.prompt[start.positive[0]]["inputs"]["text"] = [text, 0]
    base = start.sample(start.empty(), cfg=4.5, steps=50, sampler_name="dpmpp_2m")
    seen = start.add("VAEDecode", "Decode for the critic", samples=base, vae=start.vae)
    asked = start.add("HRF_CriticProvider", "Provider", "3b Critic", provider="together")
    options = {"prompt": [text, 0], "provider": [asked, 0], "image": [seen, 0], "clip": start.clip}
    critic = start.add("HRF_CritiCore", "Critic", **options)
    start.add("PreviewAny", "What the critic did", source=[critic, 5])
    better = start.text("Better prompt", "")
    start.prompt[better[0]]["inputs"]["text"] = [critic, 0]
    again = {"positive": better, "steps": 37, "cfg": 12.0, "sampler_name": "dpmpp_2m"}
    refined = start.sample(base, **again, denoise=0.74, seed=SEED + 2137)
    start.prompt[refined[0]]["_meta"]["title"] = "Drawn again"
    fused = start.add("HRF_SpecFusion", "SpecFusion", "4 Fused", base=base, refined=refined)
    return start.save([fused, 0], name)


GRAPHS: dict[str, tuple[Callable[[Family, str, str], dict], str, str]] = {
    "sdxl_demofusion": (demofusion, "sdxl", "DemoFusion"),
    "sdxl_repldm": (repldm, "sdxl", "RepLDM"),
    "sdxl_controlnet": (controlnet, "sdxl", "HiRes Fusion best"),
    "sdxl_regions": (regions, "sdxl", "HiRes Fusion best"),
    "sdxl_fusion": (fusion, "sdxl", ""),
    "sdxl_critifusion": (critifusion, "sdxl", ""),
}
for _key in FAMILIES:
    GRAPHS[f"{_key}_best"] = (text_to_4k, _key, "HiRes Fusion best")
    GRAPHS[f"{_key}_fast"] = (text_to_4k, _key, "HiRes Fusion fast")
    GRAPHS[f"{_key}_enlarge"] = (enlarge_picture, _key, "HiRes Fusion best")


def make(name: str) -> dict:
    """The API file of a ready graph."""
    maker, family, preset = GRAPHS[name]
    return maker(FAMILIES[family], preset, name)
