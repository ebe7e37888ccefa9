# SPDX-License-Identifier: Apache-2.0
"""Features of a trained backbone for uses of your own: search, clusters, probes, ONNX."""
from .embedding import Embedding, LoadedBackbone, embed, load_backbone

__all__ = ['Embedding', 'LoadedBackbone', 'embed', 'load_backbone']
