"""The surface: one file per technique, each a schema and a short execute; no mathematics.

The next node: write a file like `skip_residual.py`, add its class to NODES, give it a page in
`web/docs/` and a place in a workflow. Of a workflow write `workflows/api/<name>.json`; then
`python -m tools.graph <name>` makes the file to drag and `python -m tools.thumbnails <name>` its
picture.
"""

from .demo_model import LoadDemoModel
from .dilated import DilatedSampling
from .evaluate import EvaluateImages
from .latents import DiffuseLatent, LatentList, MatchStatistics, StageList, UpsampleLatent
from .progressive import ProgressiveUpscale
from .skip_residual import SkipResidual
from .tiled import TiledDiffusion
from .view_prompts import ViewPrompts

NODES = [
    LoadDemoModel,
    TiledDiffusion,
    DilatedSampling,
    SkipResidual,
    ViewPrompts,
    UpsampleLatent,
    DiffuseLatent,
    MatchStatistics,
    LatentList,
    StageList,
    ProgressiveUpscale,
    EvaluateImages,
]
