"""The mathematics of HiRes Fusion: tensors in, tensors out. Nothing in here knows ComfyUI."""
