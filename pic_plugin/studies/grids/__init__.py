# SPDX-License-Identifier: Apache-2.0
"""Grids of trainings, one file each, read by ``pic_plugin.tools.ablation`` and never imported."""
