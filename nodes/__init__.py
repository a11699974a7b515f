"""The surface: one file per technique, each a schema and a short execute; no mathematics.

The next node: write a file like `skip_residual.py`, add its class to NODES, which also has its
inputs checked (see `inputs`), give it a page in `web/docs/` and a place in a workflow. Of a
workflow write `workflows/api/<name>.json` and its title into `tools/templates.py`; then
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
from .frequency_guidance import FrequencyGuidance
from .fusers import AdaptiveGlobalFusion, DynamicSpatialFusion
from .guidance_interval import GuidanceInterval
from .inputs import guard
from .latents import DiffuseLatent, LatentList, MatchStatistics, StageList, UpsampleLatent
from .progressive import ProgressiveUpscale
from .renoise import AddedNoise, InversionNoise, RenoiseSigmas
from .schedule import InitRateSigmas, NativeLatent
from .skip_residual import SkipResidual
from .spec_fusion import Cadr, SpecFusion
from .stage import StageNode
from .structure_guidance import StructureGuidance
from .subject_mask import SubjectMask
from .tiled import TiledDiffusion
from .upsample_guidance import UpsampleGuidance
from .vae_limits import VAELimits
from .view_prompts import ViewPrompts
from .windowed_attention import WindowedSelfAttention

NODES = [
    LoadDemoModel,
    TiledDiffusion,
    DilatedSampling,
    UpsampleGuidance,
    StructureGuidance,
    FrequencyGuidance,
    GuidanceInterval,
    WindowedSelfAttention,
    SkipResidual,
    AttentiveGuidance,
    InitRateSigmas,
    RenoiseSigmas,
    InversionNoise,
    SubjectMask,
    ViewPrompts,
    NativeLatent,
    UpsampleLatent,
    DiffuseLatent,
    MatchStatistics,
    AddedNoise,
    LatentList,
    AdaptiveGlobalFusion,
    DynamicSpatialFusion,
    SpecFusion,
    Cadr,
    StageList,
    VAELimits,
    ProgressiveUpscale,
    StageNode,
    CriticProvider,
    DecomposePrompt,
    ExpandTags,
    CritiqueImage,
    MergePrompt,
    CritiCore,
    EvaluateImages,
]

for _node in NODES:
    guard(_node)
