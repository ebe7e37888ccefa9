# SPDX-License-Identifier: Apache-2.0
"""PIC beside its rivals at equal forward passes: many small trainings at once on one device.

Torch and numpy only, without a Runner: a training of 5,000 small images takes seconds on a GPU, so
that search, seeds and rivals fit into minutes. What is shared with the rest of the project (window
stream, loss, refresh of returning rows, kNN, linear evaluation) is taken from it or tested equal.
"""
