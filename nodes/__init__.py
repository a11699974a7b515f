"""The surface: one file per technique, each a schema and a short execute; no mathematics.

The next node: write a file like `skip_residual.py`, add its class to NODES, give it a page in
`web/docs/` and a place in a workflow. Of a workflow write `workflows/api/<name>.json`; then
`python -m tools.graph <name>` makes the file to drag and `python -m tools.thumbnails <name>` its
picture.
"""

from .attentive_guidance import AttentiveGuidance
from .critic import CriticProvider
from .critic_core import CritiCore, MergePrompt
from .critic_roles import CritiqueImage, DecomposePrompt, ExpandTags
from .demo_model import LoadDemoModel
from .dilated import DilatedSampling
from .evaluate import EvaluateImages
from .fusers import AdaptiveGlobalFusion, DynamicSpatialFusion
from .latents import DiffuseLatent, LatentList, MatchStatistics, StageList, UpsampleLatent
from .progressive import ProgressiveUpscale
from .schedule import InitRateSigmas, NativeLatent
from .skip_residual import SkipResidual
from .spec_fusion import Cadr, SpecFusion
from .tiled import TiledDiffusion
from .vae_limits import VAELimits
from .view_prompts import ViewPrompts

NODES = [
    LoadDemoModel,
    TiledDiffusion,
    DilatedSampling,
    SkipResidual,
    AttentiveGuidance,
    InitRateSigmas,
    ViewPrompts,
    NativeLatent,
    UpsampleLatent,
    DiffuseLatent,
    MatchStatistics,
    LatentList,
    AdaptiveGlobalFusion,
    DynamicSpatialFusion,
    SpecFusion,
    Cadr,
    StageList,
    VAELimits,
    ProgressiveUpscale,
    CriticProvider,
    DecomposePrompt,
    ExpandTags,
    CritiqueImage,
    MergePrompt,
    CritiCore,
    EvaluateImages,
]
