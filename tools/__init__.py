"""Development tools of the checkout: environment, ComfyUI server, client, demo."""
