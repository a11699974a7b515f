"""What the host hands a model or hangs on it, and what views make of each: data, no code.

Three tables. `MODEL_CONDS`: the keys of a processed cond's `model_conds`. `OPTIONS`: entries of
`transformer_options`. `PATCHES`: the host's own nodes and classes whose functions a MODEL carries.
`tests/host/test_table.py` walks the host's source and fails on a name that stands here nowhere.
What is in no table is judged by what it holds, see `cuts.unknown` and `patches`; what cannot be
understood is refused.
"""

from __future__ import annotations

from typing import NamedTuple


class Refused(NamedTuple):
    """What views cannot do; `why` goes on "views cannot use it: ..." and says the fix."""

    why: str


# How a model cond reaches a view. The names are those of the methods of `cuts.Cutter`.
SHARED = "shared"  # says nothing of places: the same for all views
VECTOR = "vector"  # SDXL's sizes and crop: shared, but for a window's place
CELLS = "cells"  # (..., H, W) of the canvas: cut as the latent is; one cell stands for all
MASK = "mask"  # CELLS, and never negative (LTX marks the cells of a sparse guide so)
REFERENCE = "reference"  # another picture: cut if it has the canvas' size, else shared
STRETCHED = "stretched"  # (..., h, w) of any size, which the model stretches over the canvas
PIXELS = "pixels"  # (..., H, W) of the canvas in pixels
JOINT_MASK = "joint_mask"  # attention of text and image tokens, (B, n, n), or of text alone
GUIDE_TOKENS = "guide_tokens"  # LTX: places of the guide frames' tokens, (B, 3, F H W, ..)
GUIDE_COUNTS = "guide_counts"  # LTX: how many tokens each guide has
KEYFRAME_SLOTS = "keyframe_slots"  # LTX: where generated keyframes lie among the tokens

NATIVE_ONLY = "use it in the native-size stage only"
_PACKED = Refused(f"it lays out packed latents of several parts for one size; {NATIVE_ONLY}")
_HIDREAM_O1 = Refused(
    f"HiDream-O1 numbers the tokens of the whole picture once for a run; {NATIVE_ONLY}"
)
_SPARSE_3D = Refused("it belongs to a model of shapes, whose latents are no picture")

# Our own: which of two prompts holds at a place, and the text of the second (`by_place`).
PLACE, DETAIL = "hires_fusion_place", "hires_fusion_detail"

MODEL_CONDS: dict[str, str | Refused] = {
    PLACE: CELLS,
    DETAIL: SHARED,
    # Text and its masks.
    **dict.fromkeys(
        (
            *("c_crossattn", "crossattn_controlnet", "time_context", "clip_text", "context_pose"),
            *("text_embedding_mask", "text_embedding_mask_t5", "encoder_hidden_states_t5"),
            *("encoder_hidden_states_llama3", "txt_byt5", "t5xxl_ids", "t5xxl_weights"),
            *("num_tokens", "ref_contexts", "replace_with_null_embeds", "lyric_embed"),
            *("lyric_token_idx", "lyrics_strength", "speaker_embeds", "conditioning_scale"),
        ),
        SHARED,
    ),
    "attention_mask": JOINT_MASK,
    # Pooled text, numbers, image embeddings.
    "y": VECTOR,
    **dict.fromkeys(
        (
            *("clip_text_pooled", "clip_img", "clip", "clip_fea", "clip_fea_pose", "clip_fea_ref"),
            *("sca", "crp", "guidance", "global_embed", "degrade_sigma", "ofs", "embeds"),
            *("siglip_feats", "disable_time_r", "guiding_frame_index", "num_video_frames"),
            *("frame_rate", "fps", "ref_latents_method", "ref_mask_flag", "vace_strength"),
            *("pose_strength", "reference_strength", "audio_inject_scale"),
            # What the model is told of the picture's size: the canvas', as for SDXL.
            *("image_meta_size", "c_size", "c_ar"),
            # Sound goes with frames, a face with the person, wherever either is.
            *("audio_embed", "ref_audio", "audio_codes", "refer_audio", "is_covers"),
            "face_pixel_values",
        ),
        SHARED,
    ),
    # Pictures of the canvas.
    **dict.fromkeys(
        (
            *("c_concat", "local_add_cond", "image_cond", "condition", "vace_context"),
            *("time_dim_concat", "time_dim_replace", "control_video", "reference_motion"),
            *("pose_latents", "sam_latents", "ref_mask_latents"),
        ),
        CELLS,
    ),
    "denoise_mask": MASK,
    "effnet": STRETCHED,
    "camera_conditions": PIXELS,
    # Other pictures.
    **dict.fromkeys(
        ("ref_latents", "ref_latent", "reference_latent", "context_latents"), REFERENCE
    ),
    # Tokens of LTX's guide frames.
    "keyframe_idxs": GUIDE_TOKENS,
    "guide_attention_entries": GUIDE_COUNTS,
    "generated_keyframes": KEYFRAME_SLOTS,
    # What no view can be given.
    "lq_latent": Refused(f"PiD enlarges one picture by its own factor as a whole; {NATIVE_ONLY}"),
    **dict.fromkeys(("latent_shapes", "audio_denoise_mask", "minimax_payload"), _PACKED),
    **dict.fromkeys(
        (
            *("input_ids", "position_ids", "token_types", "vinput_mask", "ar_len"),
            *("ref_pixel_values", "ref_image_grid_thw", "ref_patches"),
        ),
        _HIDREAM_O1,
    ),
    **dict.fromkeys(
        (
            *("trellis2_coords", "trellis2_coord_counts", "trellis2_generation_mode"),
            *("trellis2_shape_slat", "trellis2_proj_feats", "trellis2_model_frame"),
        ),
        _SPARSE_3D,
    ),
}

# What nodes put in a CONDITIONING for the size that it will be drawn at, and the model cond that
# becomes of it: a wrong one is refused before the host processes it, and before any stage is drawn.
SIZED = {
    **{
        name: name
        for name in (
            *("camera_conditions", "keyframe_idxs", "guide_attention_entries"),
            *("generated_keyframes", "time_dim_concat", "time_dim_replace", "control_video"),
            *("reference_motion", "lq_latent"),
        )
    },
    "noise_concat": "c_concat",
    "pose_video_latent": "pose_latents",
    "vace_frames": "vace_context",
    "vace_mask": "vace_context",
    "text_input_ids": "input_ids",
}

# Entries of a cond dictionary that the host's sampler reads, besides what models are given.
COND_ENTRIES = {
    "model_conds": "each by MODEL_CONDS",
    "area": "acts as a mask with faded edges",
    "mask": "cut",
    "mask_strength": SHARED,
    "strength": SHARED,
    "timestep_start": SHARED,
    "timestep_end": SHARED,
    "start_percent": SHARED,
    "end_percent": SHARED,
    "clip_start_percent": SHARED,
    "clip_end_percent": SHARED,
    "default": "as the host does, per view",
    "control": "every link shows the view's part, see control.CanvasHints",
    "gligen": "boxes moved and cut, see control.gligen_for_views",
    "hooks": "their patches are judged as the MODEL's are",
    "uuid": SHARED,
}

OPTIONS: dict[str, str | Refused] = {
    # Set by the host or the network for each call, from what the call is given.
    **dict.fromkeys(
        (
            *("cond_or_uncond", "uuids", "sigmas", "sample_sigmas", "activations_shape"),
            *("original_shape", "transformer_index", "block", "block_type", "block_index"),
            *("total_blocks", "img_slice", "grid_sizes", "reference_image_num_tokens"),
            *("n_heads", "dim_head", "attn_precision", "context_window", "model_patch_data"),
            *("prefetch_dynamic_vbars", "multigpu_thread_device", "x_ref_attn_map"),
        ),
        SHARED,
    ),
    # Set by nodes, and without a place.
    **dict.fromkeys(
        (
            *("rope_options", "chroma_radiance_options", "stg_self_attn_blocks"),
            *("stg_skip_self_attn", "a2v_cross_attn", "v2a_cross_attn", "run_vx", "run_ax"),
            *("minimax_h3_sigma_shift_video", "minimax_h3_sigma_shift_audio"),
            "optimized_attention_override",
        ),
        SHARED,
    ),
    # Containers, whose members are judged one by one.
    **dict.fromkeys(("patches", "patches_replace", "wrappers", "callbacks"), "judged"),
    # Both caches put it here; the wrappers tell them apart.
    "easycache": SHARED,
    # What would mix views.
    **dict.fromkeys(
        ("ar_config", "ar_state"),
        Refused("it draws a video frame after frame from what it kept of the frames before"),
    ),
    "animate2_cache": Refused(
        "it keeps the pose of one view for all of them: leave Wan Animate 2 Cache out"
    ),
    "audio_embeds": Refused(
        "InfiniteTalk puts whole frames and masks of speakers into every view; leave it out"
    ),
}

CANVAS = "canvas"  # acts on the fused prediction, that is on the whole picture
VIEW = "view"  # acts inside the network on each view as on a picture of its own
_IMAGE = Refused(f"it holds an image, and every view would get the whole of it; {NATIVE_ONLY}")

# File and class (or function) in it that a function hung on a MODEL comes from.
PATCHES: dict[str, str | Refused] = {
    **dict.fromkeys(
        (
            *("nodes_apg.APG", "nodes_cfg.CFGZeroStar", "nodes_cfg.CFGNorm", "nodes_fresca.FreSca"),
            *("nodes_tcfg.TCFG", "nodes_mahiro.Mahiro", "nodes_lumina2.RenormCFG"),
            *("nodes_model_advanced.RescaleCFG", "nodes_latent.LatentApplyOperationCFG"),
            *("nodes_video_model.VideoLinearCFGGuidance", "nodes_eps.EpsilonScaling"),
            *("nodes_video_model.VideoTriangleCFGGuidance", "nodes_eps.TemporalScoreRescaling"),
            *("nodes_perpneg.PerpNeg", "nodes_slg.SkipLayerGuidanceDiTSimple"),
            *("nodes_differential_diffusion.DifferentialDiffusion",),
            *("nodes_lt.LTXVReferenceAudio", "nodes_advanced_samplers.sample_euler_pp"),
            *("nodes_custom_sampler.CFGOverride", "nodes_easycache.LazyCacheNode"),
            *("nodes_triposplat.TripoSplatSamplingPreview", "nodes_easycache.lazycache"),
            "nodes_easycache.easycache_sample_wrapper",
        ),
        CANVAS,
    ),
    # Their guidance acts on the canvas; what it compares with is predicted in views, too.
    **dict.fromkeys(
        (
            *("nodes_pag.PerturbedAttentionGuidance", "nodes_slg.SkipLayerGuidanceDiT"),
            *("nodes_lt.LTXVSpatioTemporalGuidance", "nodes_lt.LTXVModalityGuidance"),
        ),
        CANVAS,
    ),
    **dict.fromkeys(
        (
            *("nodes_freelunch.FreeU", "nodes_freelunch.FreeU_V2", "nodes_hypertile.HyperTile"),
            *("nodes_tomesd.TomePatchModel", "nodes_hypernetwork.HypernetworkLoader"),
            *("nodes_hypernetwork.load_hypernetwork_patch", "nodes_nag.NAGuidance"),
            *("nodes_model_downscale.PatchModelAddDownscale", "nodes_rope.ScaleROPE"),
            *("nodes_chroma_radiance.ChromaRadianceOptions", "nodes_train.TrainLoraNode"),
            *("nodes_model_patch.USOStyleReference", "nodes_model_patch.UsoStyleProjectorPatch"),
            *("nodes_model_advanced.ModelAttentionBackend", "torch_compile.torch.compile"),
            "torch_compile.apply_torch_compile_factory",
        ),
        VIEW,
    ),
    # They change what the model is: its sampling, its dtype, its shift.
    **dict.fromkeys(
        (
            *(
                "nodes_model_advanced.ModelSamplingDiscrete",
                "nodes_model_advanced.ModelSamplingSD3",
            ),
            *("nodes_model_advanced.ModelSamplingStableCascade", "nodes_lt.ModelSamplingLTXV"),
            *("nodes_model_advanced.ModelSamplingFlux", "nodes_model_advanced.ModelNoiseScale"),
            *("nodes_model_advanced.ModelSamplingContinuousEDM",),
            *("nodes_model_advanced.ModelSamplingContinuousV",),
            *("nodes_model_advanced.ModelComputeDtype", "nodes_minimax_h3.MiniMaxH3SigmaShift"),
            *("nodes_multigpu._force_supported_compute_dtype",),
        ),
        VIEW,
    ),
    "nodes_sag.SelfAttentionGuidance": Refused(
        "Self-Attention Guidance takes the attention of the last model call for that of the whole "
        "picture: leave it out, or use Perturbed-Attention Guidance"
    ),
    **dict.fromkeys(
        ("nodes_easycache.EasyCacheNode", "nodes_easycache.easycache"),
        Refused(
            "EasyCache keeps the last model call, which with views is another part of the "
            "picture: use LazyCache, which keeps whole steps, or leave it out"
        ),
    ),
    **dict.fromkeys(
        ("nodes_flux.FluxKVCache", "nodes_flux.KV_Attn_Input"),
        Refused("Flux KV Cache keeps the references of the first view for all: leave it out"),
    ),
    "nodes_context_windows.ContextWindowsManualNode": "judged by its dimension",
    **dict.fromkeys(
        (
            *("nodes_model_patch.QwenImageDiffsynthControlnet", "nodes_model_patch.SUPIRApply"),
            *("nodes_model_patch.DiffSynthCnetPatch", "nodes_model_patch.ZImageControlPatch"),
            *("nodes_model_patch.WanUni3CControlnetApply", "nodes_model_patch.WanUni3CCnetPatch"),
            *("nodes_model_patch.AnimaLLLiteApply", "lllite.AnimaLLLitePatch"),
            *("lllite.AnimaLLLiteAttentionPatch", "lllite.AnimaLLLiteMLPPatch"),
            "supir_patch.SUPIRPatch",
        ),
        _IMAGE,
    ),
    **dict.fromkeys(
        (
            *("nodes_wan.WanInfiniteTalkToVideo", "model_multitalk.InfiniteTalkOuterSampleWrapper"),
            *(
                "model_multitalk.MultiTalkCrossAttnPatch",
                "model_multitalk.MultiTalkGetAttnMapPatch",
            ),
        ),
        OPTIONS["audio_embeds"],
    ),
    "nodes_wan.WanAnimate2Cache": OPTIONS["animate2_cache"],
    "nodes_hidream_o1.HiDreamO1PatchSeamSmoothing": _HIDREAM_O1,
    "nodes_sdpose.SDPoseKeypointExtractor": Refused(
        "it reads features of the whole picture: give it the model without view nodes"
    ),
}

# Keys that wrappers are added with, where their functions do not tell the node.
WRAPPER_KEYS: dict[str, str] = {
    "easycache": "nodes_easycache.easycache",
    "lazycache": "nodes_easycache.lazycache",
    "torch.compile": "torch_compile.torch.compile",
    "infinite_talk_outer_sample": "nodes_wan.WanInfiniteTalkToVideo",
    "hidream_o1_patch_seam_smoothing": "nodes_hidream_o1.HiDreamO1PatchSeamSmoothing",
    "triposplat_sampling_preview": "nodes_triposplat.TripoSplatSamplingPreview",
    "ContextWindows_prepare_sampling": "nodes_context_windows.ContextWindowsManualNode",
    "ContextWindows_sampler_sample": "nodes_context_windows.ContextWindowsManualNode",
}

# Parts of the model that nodes put another in place of.
OBJECTS = {
    *("model_sampling", "latent_format", "manual_cast_dtype"),
    *("diffusion_model.params.default_ref_method", "diffusion_model.default_ref_method"),
}
