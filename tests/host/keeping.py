"""Functions on a MODEL that keep something of one model call for the next, in every place there is:
a closure, an object, a module, a class, an option; and such as only look like it."""

from __future__ import annotations

import torch
from comfy.patcher_extension import WrappersMP


def keeping_the_last_call(model):
    residual = None

    def around(apply_model, args):
        nonlocal residual
        residual = apply_model(args["input"], args["timestep"], **args["c"])
        return residual

    model.set_model_unet_function_wrapper(around)


def keeping_in_an_object(model):
    class FirstBlock:
        def __init__(self):
            self.kept = {}

        def __call__(self, executor, *args, **kwargs):
            self.kept["x0"] = executor(*args, **kwargs)
            return self.kept["x0"]

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "first block", FirstBlock())


def keeping_by_a_method(model):
    class Skipper:
        def __init__(self):
            self.step, self.result = 0, None

        def store(self, result):
            self.result = result
            return result

        def __call__(self, apply_model, args):
            if self.result is not None:
                return self.result
            return self.store(apply_model(args["input"], args["timestep"], **args["c"]))

    model.set_model_unet_function_wrapper(Skipper())


LAST: dict = {}
last_result = None


def _remember(result):
    LAST["x0"] = result


def keeping_in_a_dict_of_the_module(model):
    def around(apply_model, args):
        if not LAST:
            _remember(apply_model(args["input"], args["timestep"], **args["c"]))
        return LAST["x0"]

    model.set_model_unet_function_wrapper(around)


def keeping_in_a_variable_of_the_module(model):
    def around(apply_model, args):
        global last_result
        if last_result is None:
            last_result = apply_model(args["input"], args["timestep"], **args["c"])
        return last_result

    model.set_model_unet_function_wrapper(around)


def keeping_in_a_class(model):
    class Shared:
        x0 = None

        def __call__(self, apply_model, args):
            if Shared.x0 is None:
                Shared.x0 = apply_model(args["input"], args["timestep"], **args["c"])
            return Shared.x0

    model.set_model_unet_function_wrapper(Shared())


def caching_keys(model):
    class KeyValueCache:
        def __init__(self):
            self.cache = {}

        def __call__(self, q, k, v, extra):
            if extra["block"] in self.cache:
                return q, *self.cache[extra["block"]]
            self.cache[extra["block"]] = k, v
            return q, k, v

    model.set_model_attn1_patch(KeyValueCache())


def blending_with_the_last_step(model):
    class Smooth:
        ref = None

        def __call__(self, h, hsp, extra):
            out = h if self.ref is None else 0.9 * h + 0.1 * self.ref
            self.ref = h
            return out, hsp

    model.set_model_output_block_patch(Smooth())


def blending_by_the_block(model):
    store = {}

    def patch(h, hsp, extra):
        at = extra["block"][1]
        if at in store:
            h = 0.9 * h + 0.1 * store[at]
        store[at] = h
        return h, hsp

    model.set_model_output_block_patch(patch)


def noting_early_for_later(model):
    early = None

    def patch(q, k, v, extra):
        nonlocal early
        if extra["sigmas"][0] > 5:
            early = k
        return (q, k, v) if early is None else (q, 0.5 * (k + early), v)

    model.set_model_attn1_patch(patch)


def leaving_it_with_helpers(model):
    class Hold:
        amount = None

        def note(self, h):
            self.amount = h.mean()

        def level(self, h):
            return h if self.amount is None else h - h.mean() + self.amount

        def __call__(self, h, extra):
            out = self.level(h)
            self.note(h)
            return out

    model.set_model_input_block_patch(Hold())


def leaving_it_in_an_option(model):
    model.model_options["transformer_options"]["my_pack"] = {}

    def patch(q, k, v, extra):
        state = extra["my_pack"]
        state["k"] = 0.5 * (k + state.get("k", k))
        return q, state["k"], v

    model.set_model_attn1_patch(patch)


def running_mean_in_place(model):
    mean = torch.zeros(1)

    def patch(h, extra):
        return h - h.mean() + mean.lerp_(h.mean(), 0.1)

    model.set_model_input_block_patch(patch)


def handing_on_within_a_call(model):
    """As HyperTile and windowed attention do: noted for the attention, taken after it."""
    noted = None

    def before(q, k, v, extra):
        nonlocal noted
        noted = None
        if extra["block"][0] == "input":
            noted = q.shape
        return q, k, v

    def after(out, extra):
        nonlocal noted
        if noted is not None:
            out, noted = out * (1 + 0 * noted[0]), None
        return out

    model.set_model_attn1_patch(before)
    model.set_model_attn1_output_patch(after)


def noting_before_reading(model):
    class Scale:
        def __call__(self, q, k, v, extra):
            with torch.no_grad():
                self.size = q.shape[1]
            return q * self.size**0, k, v

    model.set_model_attn1_patch(Scale())


def counting_blocks(model):
    class Count:
        blocks = 0

        def __call__(self, q, k, v, extra):
            self.blocks += 1
            return q, k, v

    model.set_model_attn2_patch(Count())


HARMLESS = [handing_on_within_a_call, noting_before_reading, counting_blocks]

ALL = [
    keeping_the_last_call,
    keeping_in_an_object,
    keeping_by_a_method,
    keeping_in_a_dict_of_the_module,
    keeping_in_a_variable_of_the_module,
    keeping_in_a_class,
    caching_keys,
    blending_with_the_last_step,
    blending_by_the_block,
    noting_early_for_later,
    leaving_it_with_helpers,
    leaving_it_in_an_option,
    running_mean_in_place,
]
