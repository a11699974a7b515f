"""The whole demo model in minutes, on a machine with a GPU and many cores: one command.

    python -m lab.training.relay --minutes 9 --workers 14 --to out/weights
    python -m lab.training.relay --minutes 3 --workers 1 --count 64 --scale 1 --batch 8   # a CPU

Pictures are drawn by the processor while the GPU trains on those that are there: the VAE first,
then UNet and text encoder, beside them a second decoder that has a critic (in `vae_critic`), and
the refiner. A step that fails stops the others.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from ..files import ROOT

SHARES = {"vae": 0.24, "critic": 0.16, "unet": 0.60, "refiner": 0.06}
"""Parts of --minutes; the critic's runs beside the UNet's, the rest goes into starting up."""


class Relay:
    """Child processes that end together."""

    def __init__(self) -> None:
        self.running: list[tuple[str, subprocess.Popen]] = []

    def start(self, module: str, *options: object) -> subprocess.Popen:
        command = [sys.executable, "-m", f"lab.{module}", *map(str, options)]
        print("+", " ".join(command[2:]), flush=True)
        process = subprocess.Popen(command, cwd=ROOT)
        self.running.append((module, process))
        return process

    def finish(self, process: subprocess.Popen) -> None:
        """Wait for one process; end with its error, or with that of any other."""
        while process.poll() is None:
            self.check()
            time.sleep(0.2)
        self.check()

    def check(self) -> None:
        for module, process in self.running:
            if process.poll():
                raise SystemExit(f"{module} failed with {process.returncode}")

    def stop(self) -> None:
        for _, process in self.running:
            process.terminate()
        for _, process in self.running:
            process.wait()


def run(args: argparse.Namespace, relay: Relay) -> None:
    """All steps in order."""
    folder, to = Path(args.out), Path(args.to)
    data, vae, unet = folder / "data", folder / "vae", folder / "unet"
    minutes = {name: share * args.minutes for name, share in SHARES.items()}
    options = ("--kinds", "balloon,boat,lighthouse", "--workers", args.workers)
    relay.start("scenes.dataset", "--count", args.count, "--out", data, *options)
    lines = data / "meta.jsonl"
    while not lines.exists() or len(lines.read_text().splitlines()) < min(args.count, args.first):
        relay.check()
        time.sleep(0.5)
    common = ("--data", data, "--threads", args.threads, "--log-every", args.log_every)
    first = relay.start(
        *("training.train_vae", *common, "--out", vae, "--minutes", minutes["vae"]),
        *("--scale", args.scale),
    )
    main = relay.start(
        *("training.train_unet", *common, "--vae", vae, "--wait", "--out", unet),
        *("--minutes", minutes["unet"], "--batch", args.batch, "--lr", args.lr),
    )
    relay.finish(first)
    critic = relay.start(
        *("training.train_vae", *common, "--decoder-only", "--base", vae, "--scale", args.scale),
        *("--critic", args.critic, "--lr", 3e-4, "--out", folder / "vae_critic"),
        *("--minutes", minutes["critic"]),
    )
    relay.finish(main)
    relay.finish(critic)
    relay.finish(
        relay.start("training.train_unet", "--export", "--vae", vae, "--out", unet, "--to", to)
    )
    shutil.copytree(ROOT / "demo" / "tokenizer", to / "tokenizer", dirs_exist_ok=True)
    shutil.copy(folder / "vae_critic" / "vae.safetensors", to / "vae_critic.safetensors")
    refiner = folder / "refiner"
    relay.finish(
        relay.start(
            *("training.train_refiner", *common, "--vae", vae, "--base", to, "--out", refiner),
            *("--minutes", minutes["refiner"], "--batch", args.batch),
        )
    )
    relay.finish(relay.start("training.train_refiner", "--export", "--base", to, "--out", refiner))
    for picture in (
        vae / "final.png",
        folder / "vae_critic" / "final.png",
        *unet.glob("*_final_*"),
    ):
        shutil.copy(picture, to / f"{picture.parent.name}_{picture.name}")


def main() -> None:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--minutes", type=float, default=9, help="of everything")
    p.add_argument("--out", default="lab/runs/relay", help="pictures and checkpoints")
    p.add_argument("--to", default="lab/runs/relay/weights", help="the finished model")
    p.add_argument("--count", type=int, default=40000, help="pictures to draw")
    p.add_argument("--first", type=int, default=1024, help="pictures to wait for")
    p.add_argument("--workers", type=int, default=14, help="processes that draw")
    p.add_argument("--threads", type=int, default=2, help="of each training process")
    p.add_argument("--scale", type=int, default=12, help="times the crops of a VAE step on a CPU")
    p.add_argument("--batch", type=int, default=768, help="pictures of a UNet step")
    p.add_argument("--lr", type=float, default=1.5e-3)
    p.add_argument("--critic", type=float, default=0.3, help="the discriminator's share")
    p.add_argument("--log-every", type=float, default=20, help="seconds")
    relay = Relay()
    try:
        run(p.parse_args(), relay)
    finally:
        relay.stop()


if __name__ == "__main__":
    main()
