"""The speed benchmark's instruments, adapters and rows, on a tiny image of SDXL."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch

from lab.bench import speed, speed_diffusers, speed_meter, speed_models, speed_others
from lab.bench.speed import OURS, Bench, Limits, Row, native, table
from lab.bench.speed_others import Absent, Other

PACK = """
class Half:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {
            "model": ("MODEL",),
            "tile_width": ("INT", {"default": 5}),
            "tile_batch_size": ("INT", {"default": 1}),
            "method": (["one", "two"],),
            "strength": ("FLOAT", {"default": 0.5}),
        }}
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "go"
    CATEGORY = ""
    told = []

    def go(self, model, **values):
        self.told.append(values)
        if values["tile_width"] == 13:
            raise RuntimeError("no tiles of 13")
        return (model.clone(),)

NODE_CLASS_MAPPINGS = {"SomebodysHalf": Half}
"""


@pytest.fixture(scope="module", autouse=True)
def short():
    """Limits are measured in no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed_meter, "SHORTEST", 0.01)
        patch.setattr(speed, "BATCHES", (1, 2))
        yield


@pytest.fixture(scope="module")
def bench(short):
    with torch.inference_mode():
        return Bench(speed_models.RandomSDXL(1, tiny=True), 1)


def test_rows_count_what_was_computed(bench):
    steps, conds = 1, 2
    assert bench.native.calls == steps and bench.native.evaluations == steps * conds
    assert bench.native.at_native and len(bench.native.stages) == 1
    plain = bench.run("direct", OURS["direct"], 2)
    assert plain.evaluations == steps * conds and not plain.at_native
    windows = bench.run("windows", OURS["MultiDiffusion"], 2)
    assert windows.evaluations == 9 * steps * conds and windows.at_native
    assert windows.flops == pytest.approx(9 * bench.native.flops, rel=1e-3)
    both = bench.run("DemoFusion", OURS["DemoFusion"], 2)
    assert both.evaluations == (1 + 9 + 4) * steps * conds and len(both.stages) == 2
    assert sum(both.stages) <= both.seconds and 0 <= both.outside < 1
    assert both.peak > 100


def test_operations_are_those_of_the_layers(bench):
    """Counted a second time from the sizes of layers and of attention."""
    from comfy.ldm.modules.attention import CrossAttention

    counted = []

    def linear(module, inputs, out):
        counted.append(2 * out.numel() * module.weight.shape[1:].numel())

    def attention(module, inputs, kwargs, out):
        x = inputs[0]
        context = kwargs.get("context", inputs[1] if len(inputs) > 1 else None)
        tokens = (x if context is None else context).shape[1]
        counted.append(4 * x.shape[0] * x.shape[1] * tokens * module.to_q.weight.shape[0])

    network = bench.session.model.model.diffusion_model
    hooks = [
        module.register_forward_hook(linear)
        for module in network.modules()
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))
    ]
    hooks += [
        module.register_forward_hook(attention, with_kwargs=True)
        for module in network.modules()
        if isinstance(module, CrossAttention)
    ]
    native(bench.session, "", 1, 1)
    for hook in hooks:
        hook.remove()
    assert bench.native.flops == pytest.approx(sum(counted), rel=0.01)


def test_attention_in_windows_is_counted_as_such(bench):
    from hires_fusion.sampling.attention import WindowedAttention

    bench.run("fast", OURS["HiRes Fusion fast"], 2)
    shape = (1, 4, 64, 64)
    whole, same, halves = (
        bench.meter.flops([speed_meter.Call(shape, 0.0, windows)])
        for windows in (None, WindowedAttention(window=2.0), WindowedAttention(jitter=False))
    )
    assert same == whole and halves < whole


def test_some_of_our_methods_alone(bench):
    first, decoded = bench.rows([2], [], [], ["VAE decode"])
    assert first.method == "native" and (decoded.method, decoded.calls) == ("VAE decode", 0)
    assert bench.limits.shares(decoded) == {"of_limit": None, "of_matrix_rate": None}


def test_limits_and_shares():
    row = Row(
        "a", 2, seconds=12.0, busy=10.0, stages=(10.0,), evaluations=36, at_native=True, flops=4e12
    )
    limits = Limits(0.1, 4, 1e12)
    assert limits.shares(row) == {
        "of_limit": pytest.approx(0.36),
        "of_matrix_rate": pytest.approx(0.4),
    }
    assert limits.shares(row._replace(at_native=False))["of_limit"] is None
    assert limits.better(Limits(0.05, 8, 0.5e12)) == Limits(0.05, 8, 1e12)
    text = table([row, Row("b", 3, "absent: gone")], limits)
    assert "| 36.0% | 40.0% |" in text and "| b | 3× | absent: gone |" in text
    assert len({line.count("|") for line in text.splitlines()}) == 1


def test_the_limit_is_measured(bench):
    limits = bench.limits
    assert (
        0 < limits.native_seconds < 10 * bench.native.busy and limits.native_batch in speed.BATCHES
    )
    # Convolutions may be cheaper than they count (Winograd), and the machine may have been busy
    # when one of the two was measured; a wrong unit is a thousand times off.
    rate = bench.native.flops / bench.native.evaluations / limits.native_seconds
    assert 0 < rate < 40 * limits.matrix_rate


def test_nodes_of_other_packs_are_found_and_run(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "OURS", {})
    pack = tmp_path / "somebodys-pack"
    pack.mkdir()
    (pack / "__init__.py").write_text(PACK)
    (tmp_path / "other.disabled").mkdir()
    (tmp_path / "other.disabled" / "__init__.py").write_text("raise RuntimeError")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "__init__.py").write_text("raise RuntimeError('broken')")
    other = Other("Half", "SomebodysHalf", {"tile_width": "{native}"})
    with pytest.raises(Absent, match="the host has no node SomebodysHalf"):
        speed_others.patched(bench.session, other, 4)
    assert speed_others.load_packs([tmp_path]) == ["somebodys-pack"]
    failing = other._replace(label="Failing", values={"tile_width": 13})
    gone = Other("Gone", "NobodysNode", {})
    more = tmp_path / "more"
    shutil.copytree(pack, more / "another")
    *_, half, failed, absent, again = bench.rows([2], [more], [other, failing, gone])
    node = speed_others.node_class("SomebodysHalf")
    assert node.told[-2] == {
        "tile_width": 256,
        "tile_batch_size": bench.limits.native_batch,
        "method": "one",
        "strength": 0.5,
    }
    assert half.seconds > 0 and half.evaluations == 2
    assert again.method == speed.AGAIN and again.evaluations == 18
    assert failed.note == "failed: no tiles of 13" and failed.seconds is None
    assert absent.note == "absent: the host has no node NobodysNode"


def test_a_missing_diffusers_is_a_row(bench, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    row = bench._row(speed_diffusers.LABEL, speed_diffusers.work(bench.meter.around), 1)
    assert row.note == "absent: diffusers is not installed"


def test_diffusers_runs_the_same_network(bench):
    pytest.importorskip("diffusers")
    made = speed_diffusers.pipeline(bench.session)
    x = torch.randn(2, 4, 32, 32)
    text, pooled = torch.randn(2, 77, 64), torch.randn(2, 1280)
    time = torch.tensor([500, 500])
    sizes = torch.tensor([[256.0, 256, 0, 0, 256, 256]] * 2)
    added = {"text_embeds": pooled, "time_ids": sizes}
    found = made.unet(x, time, text, added_cond_kwargs=added).sample
    network = bench.session.model.model
    embedded = torch.cat([network.embedder(side[None]) for side in sizes.flatten()]).view(2, -1)
    wanted = network.diffusion_model(x, time, text, y=torch.cat([pooled, embedded], 1))
    assert (found - wanted).norm() < 2e-3 * wanted.norm()


def test_the_full_size_is_that_of_sdxl():
    import comfy.supported_models

    config = comfy.supported_models.SDXL({**speed_models.FULL, "dtype": torch.float16})
    model = config.get_model({}, "", device=torch.device("meta"))
    # The published checkpoint's UNet.
    assert sum(p.numel() for p in model.diffusion_model.parameters()) == 2_567_463_684


def test_command_line(tmp_path, monkeypatch, capsys):
    out = tmp_path / "speed.json"
    options = ["--models", "sdxl", "--tiny", "--scales", "2", "--steps", "1", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["lab.bench.speed", *options, "--json", str(out)])
    speed.main()
    made = json.loads(out.read_text())
    assert made["torch"] == torch.__version__ and made["commit"] and made["device"]
    rows = {(row["method"], row["scale"]): row for row in made["results"][0]["rows"]}
    assert rows["DemoFusion", 2]["of_limit"] > 0 and rows["direct", 2]["of_limit"] is None
    assert "| native | 1× |" in capsys.readouterr().out
