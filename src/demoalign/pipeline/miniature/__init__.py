"""A recipe in miniature: the same stages with tiny models and made-up rows, in a minute or two.

It shows that a recipe runs from end to end here, without a GPU, a download or data. Its numbers
mean nothing: the models have random weights.
"""

from demoalign.pipeline.miniature.recipe import miniature

__all__ = ["miniature"]
