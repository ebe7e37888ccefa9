# SPDX-License-Identifier: Apache-2.0
"""Pictures of what a network learned: saliency, neighbours, maps of features, training curves."""
