"""The harness on a real server: files, times, progress, refusals, failures, interrupt."""

from __future__ import annotations

import dataclasses
import socket
import time

import numpy as np
import pytest

from tools.client import PromptError, interrupt, submit
from tools.host import HostError
from tools.run_demo import seconds_by_label
from tools.server import check_packs, start_server


def latent(size: int = 64) -> dict:
    return {
        "class_type": "EmptyLatentImage",
        "inputs": {"width": size, "height": size, "batch_size": 2},
        "_meta": {"title": "native size"},
    }


def slow(seconds: float) -> dict:
    return {
        "latent": latent(),
        "slow": {
            "class_type": "HRFT_Slow",
            "inputs": {"samples": ["latent", 0], "seconds": seconds},
        },
        "save": {
            "class_type": "SaveLatent",
            "inputs": {"samples": ["slow", 0], "filename_prefix": f"slow{seconds}"},
        },
    }


def test_pack_is_loaded(server):
    nodes = server.get_json("/object_info")
    assert "SamplerCustomAdvanced" in nodes
    assert [name for name in nodes if name.startswith("HRF_")]


def test_images_and_latents_come_back(run):
    prompt = {
        "image": {
            "class_type": "EmptyImage",
            "inputs": {"width": 40, "height": 24, "batch_size": 2, "color": 0xFF8000},
        },
        "save": {
            "class_type": "SaveImage",
            "inputs": {"images": ["image", 0], "filename_prefix": "a"},
            "_meta": {"title": "final"},
        },
        "latent": latent(),
        "keep": {
            "class_type": "SaveLatent",
            "inputs": {"samples": ["latent", 0], "filename_prefix": "b"},
        },
    }
    outputs = run(prompt)
    assert outputs.images["final"].shape == (2, 24, 40, 3)
    np.testing.assert_allclose(outputs.images["save"][0, 0, 0], [1, 128 / 255, 0], atol=1e-6)
    assert tuple(outputs.latents["keep"].shape) == (2, 4, 8, 8)
    assert outputs.result.timings.keys() >= {"image", "save"}
    assert run(prompt).result.cached >= {"image", "latent"}


def test_progress_and_seconds(server):
    seen = []
    result = submit(server, slow(0.5), seen.append)
    steps = [p.value for p in seen if p.node == "slow" and p.maximum == 10]
    assert steps[-1] == 10 and steps == sorted(steps)
    assert 0.4 < result.timings["slow"] < 60


def test_stages_inside_an_expansion_are_timed(server):
    prompt = slow(0.1)
    prompt["slow"] = {"class_type": "HRFT_Expand", "inputs": {"samples": ["latent", 0]}}
    result = submit(server, prompt).raise_for_error()
    seconds = seconds_by_label(prompt, result)
    first, second = (seconds[f"HRFT_Expand, stage {number}"] for number in (1, 2))
    assert 0.2 < first < 60 and 0.5 < second < 60


def test_a_refusal_names_node_and_reason(server):
    prompt = slow(0.1)
    prompt["latent"]["inputs"]["width"] = -8
    with pytest.raises(PromptError, match=r"native size \(EmptyLatentImage, node latent\).*width"):
        submit(server, prompt)


def test_a_failed_node_is_an_error_and_the_server_goes_on(server, run):
    prompt = slow(0.1)
    prompt["slow"] = {
        "class_type": "HRFT_Fail",
        "inputs": {"samples": ["latent", 0], "text": "lens cap is on"},
    }
    result = submit(server, prompt)
    assert result.error == "HRFT_Fail (HRFT_Fail, node slow): lens cap is on"
    assert run(slow(0.1)).latents


def test_interrupt_stops_a_run_and_the_next_is_right(server, run):
    pressed = []

    def press(progress):
        if not pressed:
            pressed.append(progress)
            interrupt(server)

    start = time.monotonic()
    result = submit(server, slow(300), press)
    assert result.interrupted and result.error is None and time.monotonic() - start < 100
    assert run(slow(0.15)).latents["save"].shape[0] == 2


def test_out_of_time_interrupts(server, run):
    with pytest.raises(TimeoutError):
        submit(server, slow(300), timeout=1)
    assert run(slow(0.2)).latents


def test_a_used_port_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = start_server(port=port, cpu=True)
        with pytest.raises(HostError, match=f"^port {port} is in use"), server:
            pass


def test_a_pack_that_does_not_import_is_an_error(tmp_path):
    (tmp_path / "__init__.py").write_text("raise RuntimeError('no such film')\n")
    server = start_server(packs={"broken": tmp_path}, cpu=True)
    with pytest.raises(HostError, match=r"(?s)Traceback.*no such film"), server:
        pass


def test_nodes_that_the_host_itself_cannot_import_are_its_affair(server, tmp_path):
    line = "Cannot import {} module for custom nodes: No module named 'comfy_angle'\n"
    for path, ours in (("comfy_extras/nodes_glsl.py", False), ("custom_nodes/a.pack", True)):
        log = tmp_path / "server.log"
        log.write_text(line.format(f"/host/{path}"), encoding="utf-8")
        told = dataclasses.replace(server, log=log)
        if ours:
            with pytest.raises(HostError, match="comfy_angle"):
                check_packs(told, {"a.pack": tmp_path})
        else:
            check_packs(told, {"a.pack": tmp_path})
