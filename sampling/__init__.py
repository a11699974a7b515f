"""How the techniques attach to ComfyUI. Only this room and its neighbours above import comfy."""
