"""The view plan: what the view nodes write on a MODEL and one wrapper executes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..fusion_ops.windows import aligned, jitter_range
from .span import WHOLE, Span

KEY = "hires_fusion"


@dataclass(frozen=True)
class LocalViews:
    """Windows: MultiDiffusion's one-step mean of overlapping ones (arXiv 2302.08113), or others.

    Attributes:
        window: side in cells, 0 for the model's native size.
        stride: distance of windows in cells, 0 for half a window.
        jitter: move the windows at random in every step.
        weights: see `fusion_ops.windows.window_weight`.
        border: see `fusion_ops.windows.windows`.
        crop: SDXL's crop coordinates of a window: "position" is its place in the picture,
            "padded" the place in the picture with the jitter's margin around it (the published
            code), "canvas" the picture's own for every window.
        grid: "overlapped", or "shifted" for windows without overlap, see `fusion_ops.shifted`;
            stride, weights and border are then not used.
    """

    window: int = 0
    stride: int = 0
    jitter: bool = True
    weights: str = "cosine"
    border: str = "clamp"
    crop: str = "position"
    grid: str = "overlapped"

    def sizes(self, native: int, align: int = 1) -> tuple[int, int]:
        """(window, stride) in cells, multiples of `align`, for a model of this native size."""
        window = aligned(self.window or native, align)
        return window, aligned(self.stride or window // 2, align)

    def crop_offset(self, native: int, align: int = 1) -> int | None:
        """Cells added to a window's place for its crop coordinates, None for none of them."""
        margin = jitter_range(*self.sizes(native, align), align)
        return {"position": 0, "padded": margin, "canvas": None}[self.crop]


@dataclass(frozen=True)
class DilatedViews:
    """Dilated sampling of the blurred canvas, DemoFusion's global path (arXiv 2311.16973, 3.4).

    Attributes:
        factor: distance of a lattice's cells, 0 for round(canvas / native size).
        cosine_scale_2: decay of the global share against the local one.
        cosine_scale_3: decay of the blur.
        sigma: largest blur, in cells.
        interaction: lattices exchange cells, see `fusion_ops.lattices.exchange`.
        native: native size in pixels, 0 for the model family's.
    """

    factor: int = 0
    cosine_scale_2: float = 1.0
    cosine_scale_3: float = 1.0
    sigma: float = 0.8
    interaction: bool = False
    native: int = 0


@dataclass(frozen=True)
class UpsampleViews:
    """The whole canvas shrunk to native size, Upsample Guidance (arXiv 2404.01709).

    Attributes:
        weight: theta, how much of the difference is added; 0 for nothing.
        span: where on the schedule; the paper's eta is its end.
        factor: how many times smaller, 0 for round(canvas / native size).
        native: native size in pixels, 0 for the model family's.
    """

    weight: float = 1.0
    span: Span = WHOLE
    factor: int = 0
    native: int = 0


@dataclass(frozen=True)
class ViewPlan:
    """All paths of the denoiser. Immutable, as hosts either copy or share it between clones.

    Attributes:
        local: windows, None for the whole canvas at once.
        dilated: lattices, None for no global path.
        upsample: the shrunk canvas that corrects the result of the others, None for none.
        view_batch_size: views in one model call, 0 for as many as memory takes.
    """

    local: LocalViews | None = None
    dilated: DilatedViews | None = None
    upsample: UpsampleViews | None = None
    view_batch_size: int = 0

    def wishes(self, native: int) -> dict[str, Any]:
        """What the user has set on the MODEL, as fields of a stage that has the same techniques.

        Args:
            native: side of a window in cells where the plan names none.
        """
        found: dict[str, Any] = {}
        if self.local:
            found |= asdict(self.local)
            window, stride = found.pop("window"), found.pop("stride")
            found |= {"stride": stride / (window or native)} if stride else {}
        if self.dilated:
            found |= asdict(self.dilated)
            found["blur_sigma"] = found.pop("sigma")
            del found["factor"], found["native"]
        return found
