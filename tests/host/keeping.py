"""Functions on a MODEL that keep something of one model call for the next, in every place there is:
a closure, an object, a module, a class."""

from __future__ import annotations

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


ALL = [
    keeping_the_last_call,
    keeping_in_an_object,
    keeping_by_a_method,
    keeping_in_a_dict_of_the_module,
    keeping_in_a_variable_of_the_module,
    keeping_in_a_class,
    caching_keys,
]
