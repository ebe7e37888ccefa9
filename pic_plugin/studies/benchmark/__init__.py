# SPDX-License-Identifier: Apache-2.0
"""Ways to keep class weights, timed side by side by ``pic_plugin.tools.benchmark``."""
