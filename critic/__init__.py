"""The prompt critic: language models split, expand, judge and merge prompts.

Knows neither torch nor ComfyUI. Roles and formats follow CritiFusion's CritiCore (METHODS 5.4);
the texts of the roles are our own.
"""
