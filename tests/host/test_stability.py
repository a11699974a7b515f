"""Nothing is kept, nothing leaks, and what cannot be right is refused with a reason."""

from __future__ import annotations

import copy
import gc
import tracemalloc
import weakref

import comfy.model_patcher
import comfy.patcher_extension
import pytest
import torch

from hires_fusion.sampling.denoiser import RUN, add_views
from hires_fusion.sampling.plan import KEY, DilatedViews, LocalViews

from .stub import cond, patcher, sample


def mild(x, sigma, conds):
    text = conds["context"].mean(dim=(1, 2)).view(-1, 1, 1, 1)
    return torch.tanh(x / (1 + sigma.view(-1, 1, 1, 1))) + 0.1 * text


def both(model, **options):
    tiled = add_views(model, local=LocalViews(**options))
    return add_views(tiled, dilated=DilatedViews())


def empty(height, width):
    return torch.zeros(1, 4, height, width)


def test_nothing_keeps_the_model_after_a_run():
    model = both(patcher(mild))
    sample(model, empty(32, 32))
    assert RUN not in model.model_options
    inner = weakref.ref(model.model)
    del model
    gc.collect()
    assert inner() is None


def growth(model):
    """(bytes, tensors) that twenty runs leave behind."""

    def kept():
        model.model.calls.clear()
        gc.collect()
        return tracemalloc.get_traced_memory()[0], sum(map(torch.is_tensor, gc.get_objects()))

    for _ in range(2):
        sample(model, empty(40, 40), steps=2)
    before = kept()
    for _ in range(20):
        sample(model, empty(40, 40), steps=2)
    return [after - first for after, first in zip(kept(), before, strict=True)]


def test_many_runs_leave_no_more_behind_than_the_host_does():
    tracemalloc.start()
    try:
        plain, viewed = growth(patcher(mild)), growth(both(patcher(mild)))
    finally:
        tracemalloc.stop()
    assert viewed[0] - plain[0] < 200_000  # dictionaries grow in steps
    assert viewed[1] <= plain[1]


class Counting(torch.overrides.TorchFunctionMode):
    """Counts the cells of the largest tensors that live at once, as weak references see them."""

    def __init__(self):
        super().__init__()
        self.live = weakref.WeakValueDictionary()
        self.peak = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if torch.is_tensor(out):
            self.live[id(out)] = out
            owned = {t.untyped_storage().data_ptr(): t for t in list(self.live.values())}
            self.peak = max(self.peak, sum(t.untyped_storage().nbytes() for t in owned.values()))
        return out


@pytest.mark.parametrize("path", ["local", "dilated"])
def test_peak_memory_does_not_grow_with_the_number_of_views(path):
    """Same canvas and view size, a quarter of the stride: 13 times the windows."""
    peaks = []
    for stride, factor in ((16, 2), (4, 4)):
        plans = {"local": LocalViews(stride=stride), "dilated": DilatedViews(factor)}
        model = add_views(patcher(mild), view_batch_size=1, **{path: plans[path]})
        model.model.calls = Forgetful()
        with Counting() as counted:
            sample(model, empty(64, 64), steps=1)
        peaks.append(counted.peak)
    assert peaks[1] <= 1.1 * peaks[0]


class Forgetful(list):
    def append(self, item):
        pass


def test_clones_that_copy_and_clones_that_share_behave():
    model = both(patcher(mild))
    right = sample(model, empty(32, 32))
    copied = model.clone()
    copied.model_options = copy.deepcopy(model.model_options)
    shared = model.clone()
    shared.model_options = {**model.model_options}
    for clone in (copied, shared):
        changed = add_views(clone, local=None)
        assert model.model_options[KEY].local == LocalViews()
        assert not torch.equal(right, sample(changed, empty(32, 32)))
        assert torch.equal(right, sample(clone, empty(32, 32)))


def test_a_foreign_function_wrapper_sees_every_view():
    shapes = []

    def foreign(apply_model, args):
        shapes.append(tuple(args["input"].shape))
        return apply_model(args["input"], args["timestep"], **args["c"]) * 0.5

    model = patcher(mild)
    model.set_model_unet_function_wrapper(foreign)
    tiled = add_views(model, local=LocalViews(jitter=False), view_batch_size=3)
    out = sample(tiled, empty(32, 32), steps=1)
    assert shapes == [(2, 4, 16, 16)] * 9  # one a call: it might look at all of a call
    unchanged = add_views(patcher(mild), local=LocalViews(jitter=False))
    assert torch.allclose(out, 0.5 * sample(unchanged, empty(32, 32), steps=1), rtol=1e-4)


@pytest.mark.parametrize("path", ["local", "dilated"])
def test_nan_is_reported_with_its_place(path):
    def broken(x, sigma, conds):
        out = mild(x, sigma, conds)
        out[-1] *= torch.nan
        return out

    plans = {"local": LocalViews(jitter=False), "dilated": DilatedViews(factor=2)}
    model = add_views(patcher(broken), view_batch_size=2, **{path: plans[path]})
    place = "row 0, column 8" if path == "local" else r"lattice \(0, 1\)"
    with pytest.raises(ValueError, match=place):
        sample(model, empty(32, 32))


def test_easycache_is_refused_and_lazycache_is_not():
    for wrappers, refused in (
        ([comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL], True),
        ([comfy.patcher_extension.WrappersMP.PREDICT_NOISE], False),
    ):
        model = both(patcher(mild))
        for kind in wrappers:
            model.add_wrapper_with_key(kind, "easycache", lambda run, *a, **k: run(*a, **k))
        if refused:
            with pytest.raises(ValueError, match="LazyCache"):
                sample(model, empty(32, 32))
            assert model.model.calls == []
        else:
            assert sample(model, empty(32, 32)).isfinite().all()


def test_context_windows_over_the_picture_are_refused():
    from comfy.context_windows import (
        IndexListContextHandler,
        get_matching_context_schedule,
        get_matching_fuse_method,
    )

    model = both(patcher(mild))
    model.model_options["context_handler"] = IndexListContextHandler(
        get_matching_context_schedule("standard_static"),
        get_matching_fuse_method("pyramid"),
        context_length=16,
        dim=3,
    )
    with pytest.raises(ValueError, match="frames"):
        sample(model, empty(32, 32))


def test_an_image_inside_a_model_patch_is_refused():
    class DiffSynthCnetPatch:
        encoded_image_size = (64, 64)

        def to(self, device):
            return self

    model = both(patcher(mild))
    model.set_model_patch(DiffSynthCnetPatch(), "double_block")
    with pytest.raises(ValueError, match="native-size stage only"):
        sample(model, empty(32, 32))


def test_lattices_that_exchange_cells():
    """A denoiser without a neighbourhood doesn't notice; one with it does; the seed decides."""
    plain = add_views(patcher(mild), dilated=DilatedViews(cosine_scale_2=0))
    mixed = add_views(patcher(mild), dilated=DilatedViews(cosine_scale_2=0, interaction=True))
    assert torch.allclose(sample(plain, empty(33, 40)), sample(mixed, empty(33, 40)), atol=1e-5)

    def near(x, sigma, conds):
        return mild(torch.nn.functional.avg_pool2d(x, 3, 1, 1), sigma, conds)

    plain.model.denoiser = near
    mixed = add_views(patcher(near), dilated=DilatedViews(cosine_scale_2=0, interaction=True))
    first, again = sample(mixed, empty(33, 40)), sample(mixed, empty(33, 40))
    assert torch.equal(first, again)
    assert not torch.allclose(first, sample(plain, empty(33, 40)), atol=1e-3)
    few = sample(add_views(mixed, view_batch_size=1), empty(33, 40))
    assert torch.allclose(first, few, rtol=1e-5, atol=1e-6)


def test_conds_of_a_batch_stay_with_their_pictures():
    mask = torch.zeros(2, 32, 32)
    mask[0, :, :16], mask[1, :, 16:] = 1, 1

    def text(x, sigma, conds):
        return conds["context"].mean(dim=(1, 2)).view(-1, 1, 1, 1).expand_as(x).clone()

    positive = cond(2.0, mask=mask) + cond(5.0, mask=1 - mask)
    settings = {"cfg": 1.0, "positive": positive, "steps": 1}
    batch = torch.zeros(2, 4, 32, 32)
    plain = sample(patcher(text), batch, **settings)
    viewed = sample(add_views(patcher(text), local=LocalViews()), batch, **settings)
    assert (plain - viewed).abs().max() <= 1e-5 * plain.abs().max()
    assert not torch.allclose(plain[0], plain[1])
