"""Nodes for the tests of the server: they take their time, fail, expand, give any value."""

import json
import time

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_management
import comfy.utils
import torch
from comfy_execution.graph_utils import GraphBuilder

from .tiny import TinyFamily


class Slow:
    """Pass a latent on after some seconds, with progress; can be interrupted."""

    CATEGORY = "testing"
    RETURN_TYPES = ("LATENT",)
    FUNCTION = "wait"
    INPUT_TYPES = classmethod(
        lambda cls: {"required": {"samples": ("LATENT",), "seconds": ("FLOAT", {"default": 1.0})}}
    )

    def wait(self, samples, seconds):
        steps = max(1, round(seconds / 0.05))
        bar = comfy.utils.ProgressBar(steps)
        for _ in range(steps):
            comfy.model_management.throw_exception_if_processing_interrupted()
            time.sleep(0.05)
            bar.update(1)
        return (samples,)


class Fail:
    """Raise."""

    CATEGORY = "testing"
    RETURN_TYPES = ("LATENT",)
    FUNCTION = "fail"
    INPUT_TYPES = classmethod(
        lambda cls: {"required": {"samples": ("LATENT",), "text": ("STRING", {})}}
    )

    def fail(self, samples, text):
        raise ValueError(text)


class Expand:
    """Two slow stages inside one node."""

    CATEGORY = "testing"
    RETURN_TYPES = ("LATENT",)
    FUNCTION = "expand"
    INPUT_TYPES = classmethod(lambda cls: {"required": {"samples": ("LATENT",)}})

    def expand(self, samples):
        graph = GraphBuilder()
        first = graph.node("HRFT_Slow", "stage1.wait", samples=samples, seconds=0.3)
        second = graph.node("HRFT_Slow", "stage2.wait", samples=first.out(0), seconds=0.6)
        return {"result": (second.out(0),), "expand": graph.finalize()}


class RandomControlNet:
    """A ControlNet of the host's class with small random weights, for the demo model's UNet."""

    CATEGORY = "testing"
    RETURN_TYPES = ("CONTROL_NET",)
    FUNCTION = "make"
    INPUT_TYPES = classmethod(lambda cls: {"required": {"model": ("MODEL",)}})

    def make(self, model):
        without = ("out_channels", "transformer_depth_output")
        known = model.model.model_config.unet_config
        config = {k: v for k, v in known.items() if k not in without}
        config |= {"num_heads": 8, "dtype": torch.float32}
        network = comfy.cldm.cldm.ControlNet(hint_channels=3, **config)
        generator = torch.Generator().manual_seed(6)
        for weight in network.parameters():
            spread = 0.02 if weight.ndim == 1 else 0.2 * weight[0].numel() ** -0.5
            weight.data = spread * torch.randn(weight.shape, generator=generator)
        device = comfy.model_management.get_torch_device()
        return (comfy.controlnet.ControlNet(network.eval(), load_device=device),)


class AnyType(str):
    """Fits every input."""

    def __ne__(self, other):
        return False


class Value:
    """Any value of JSON, NaN and Infinity too, for inputs of any type."""

    CATEGORY = "testing"
    RETURN_TYPES = (AnyType("*"),)
    FUNCTION = "give"
    INPUT_TYPES = classmethod(lambda cls: {"required": {"text": ("STRING", {})}})

    def give(self, text):
        return (json.loads(text),)


NODE_CLASS_MAPPINGS = {
    "HRFT_Value": Value,
    "HRFT_Slow": Slow,
    "HRFT_Fail": Fail,
    "HRFT_Expand": Expand,
    "HRFT_RandomControlNet": RandomControlNet,
    "HRFT_TinyFamily": TinyFamily,
}
