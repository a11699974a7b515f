"""Functions around model calls that keep one call's result for the next are refused, however they
write it down; those that only count, note or scale run."""

from __future__ import annotations

import collections

import numpy as np
import pytest
import torch

from hires_fusion.sampling import patches

from .stub import patcher


def run(apply_model, args):
    return apply_model(args["input"], args["timestep"], **args["c"])


def by_setattr():
    class Wrapper:
        def __call__(self, apply_model, args):
            out = run(apply_model, args) + getattr(self, "before", 0)
            setattr(self, "before", out)  # noqa: B010
            return out

    return Wrapper()


def in_a_list_of_its_own():
    class Wrapper:
        def __init__(self):
            self.outs = []

        def __call__(self, apply_model, args):
            out = run(apply_model, args)
            if self.outs:
                out = out + self.outs[-1]
            self.outs.append(out)
            return out

    return Wrapper()


def in_a_deque():
    outs = collections.deque(maxlen=1)

    def wrapper(apply_model, args):
        out = run(apply_model, args) + (outs[0] if outs else 0)
        outs.append(out)
        return out

    return wrapper


def by_update():
    state = {}

    def wrapper(apply_model, args):
        out = run(apply_model, args) + state.get("out", 0)
        state.update(out=out)
        return out

    return wrapper


def by_another_name():
    state = {}

    def wrapper(apply_model, args):
        kept = state
        out = run(apply_model, args) + kept.get("out", 0)
        kept["out"] = out
        return out

    return wrapper


def by_methods_of_an_object():
    class State:
        value = 0

        def save(self, value):
            self.value = value

        def load(self):
            return self.value

    state = State()

    def wrapper(apply_model, args):
        out = run(apply_model, args) + state.load()
        state.save(out)
        return out

    return wrapper


def in_place():
    buffer = torch.zeros(1)

    def wrapper(apply_model, args):
        out = run(apply_model, args) + buffer
        buffer.copy_(out.mean())
        return out

    return wrapper


def in_the_base_class():
    class Base:
        value = 0

        def mixed(self, out):
            out = out + self.value
            self.value = out
            return out

    class Wrapper(Base):
        def __call__(self, apply_model, args):
            return super().mixed(run(apply_model, args))

    return Wrapper()


def in_a_generator():
    def states():
        value = 0
        while True:
            value = yield value

    state = states()
    next(state)

    def wrapper(apply_model, args):
        out = run(apply_model, args)
        return out + state.send(out)

    return wrapper


def on_the_function():
    def wrapper(apply_model, args):
        out = run(apply_model, args) + getattr(wrapper, "before", 0)
        wrapper.before = out
        return out

    return wrapper


def in_a_default():
    def wrapper(apply_model, args, state={}):  # noqa: B006
        out = run(apply_model, args) + state.get("out", 0)
        state["out"] = out
        return out

    return wrapper


def without_a_source():
    names = {"run": run, "state": {}}
    exec(
        "def wrapper(apply_model, args):\n"
        "    out = run(apply_model, args) + state.get('out', 0)\n"
        "    state['out'] = out\n"
        "    return out",
        names,
    )
    return names["wrapper"]


def on_its_type():
    class Wrapper:
        value = 0

        def __call__(self, apply_model, args):
            out = run(apply_model, args) + type(self).value
            type(self).value = out
            return out

    return Wrapper()


def decorated():
    state = {}

    @torch.no_grad()
    def wrapper(apply_model, args):
        out = run(apply_model, args) + state.get("out", 0)
        state["out"] = out
        return out

    return wrapper


def in_a_lambda():
    state = {}
    return lambda apply_model, args: state.setdefault("out", run(apply_model, args))


def mask_in_slots():
    class Wrapper:
        __slots__ = ("mask",)

        def __init__(self):
            self.mask = torch.rand(1, 64, 64)

        def __call__(self, apply_model, args):
            return run(apply_model, args) * self.mask.mean()

    return Wrapper()


def mask_in_a_module():
    module = torch.nn.Module()
    module.register_buffer("mask", torch.rand(1, 1, 64, 64))
    return lambda apply_model, args: run(apply_model, args) * module.mask.mean()


def mask_of_numpy():
    levels = np.random.default_rng(1).random((64, 64))
    return lambda apply_model, args: run(apply_model, args) * levels.mean()


WRONG = [
    *(by_setattr, in_a_list_of_its_own, in_a_deque, by_update, by_another_name),
    *(by_methods_of_an_object, in_place, in_the_base_class, in_a_generator, on_the_function),
    *(in_a_default, without_a_source, on_its_type, decorated, in_a_lambda),
    *(mask_in_slots, mask_in_a_module, mask_of_numpy),
]


@pytest.mark.parametrize("make", WRONG)
def test_what_is_kept_is_found(make):
    model = patcher(None)
    model.set_model_unet_function_wrapper(make())
    with pytest.raises(ValueError, match=r"HiRes Fusion views .*(native-size|leave it out)"):
        patches.check(model.model_options)


def counting():
    count = [0]

    def wrapper(apply_model, args):
        count[0] += 1
        return run(apply_model, args)

    return wrapper


def noting():
    seen = []

    def wrapper(apply_model, args):
        seen.append(float(args["timestep"][0]))
        return run(apply_model, args)

    return wrapper


def scaling():
    settings = {"scale": 2.0}

    def wrapper(apply_model, args):
        scale = settings["scale"]
        kept = args["c"]
        kept["scale"] = scale
        return run(apply_model, args) * scale

    return wrapper


@pytest.mark.parametrize("make", [counting, noting, scaling])
def test_what_is_not_kept_runs(make):
    model = patcher(None)
    model.set_model_unet_function_wrapper(make())
    patches.check(model.model_options)
