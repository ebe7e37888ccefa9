# SPDX-License-Identifier: Apache-2.0
"""From a folder of pictures to a trained backbone: look, choose, explain, train, hand over.

``machine`` and ``survey`` look, ``rules`` choose (pure functions with a reason for each value),
``config_text`` writes the config that ``mim train`` takes, ``measure`` times a few steps, ``run``
trains, and ``finish`` hands the backbone over.
"""
