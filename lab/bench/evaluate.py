"""How far are pictures from others? `python -m lab.bench.evaluate GENERATED REFERENCE`

Both are folders of images. `--prompts` is a text file with a line for each generated image in the
order of the names. Metrics that need weights look for them under `--models` (or
HRF_EVALUATION_MODELS); what is missing is told with its file name and its origin.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path

import torch

from evaluation.compare import DEFAULT, METRICS, compare
from evaluation.features import INCEPTION_FILE
from evaluation.packages import MissingPackage
from evaluation.report import as_json, plot, table


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Command line."""
    p = argparse.ArgumentParser(prog="lab.bench.evaluate", description=__doc__.split("\n")[0])
    p.add_argument("generated", type=Path, help="folder of generated images")
    p.add_argument("reference", type=Path, help="folder of reference images")
    p.add_argument("--metrics", default=",".join(DEFAULT), help=f"of {', '.join(METRICS)}")
    p.add_argument("--crops", type=int, default=0, help="random crops of each image")
    p.add_argument("--crop-size", type=int, default=0, help="their side in pixels")
    p.add_argument("--prompts", type=Path, help="a line for each generated image")
    p.add_argument("--bootstrap", type=int, default=200, help="rounds for the intervals")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--inception", type=Path, help=f"{INCEPTION_FILE}, instead of Lite0")
    p.add_argument("--models", type=Path, help="folder of weights")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--json", type=Path, help="write the figures here")
    p.add_argument("--plot", type=Path, help="write the picture here")
    return p.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 and one line if something is wrong or missing."""
    args = parse(arguments)
    torch.set_num_threads(args.threads)
    try:
        prompts = args.prompts and args.prompts.read_text(encoding="utf-8").splitlines()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the table says it
            scores = compare(
                args.generated,
                args.reference,
                metrics=[name.strip() for name in args.metrics.split(",")],
                crops=args.crops,
                crop_size=args.crop_size,
                seed=args.seed,
                bootstrap=args.bootstrap,
                prompts=prompts,
                extractor=args.inception,
                models=args.models,
                device="cuda" if torch.cuda.is_available() else "cpu",
            )
        print(table(scores))
        if args.json:
            args.json.write_text(json.dumps(as_json(scores), indent=1) + "\n", encoding="utf-8")
        if args.plot:
            plot(scores, args.generated, args.reference).save(args.plot)
    except (ValueError, OSError, MissingPackage) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
