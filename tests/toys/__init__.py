# SPDX-License-Identifier: Apache-2.0
"""Small trainings, networks and checkpoints that several tests share, in their processes too."""
