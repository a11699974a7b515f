"""The demo model: a small SDXL-like latent diffusion model made of ComfyUI's own classes."""
