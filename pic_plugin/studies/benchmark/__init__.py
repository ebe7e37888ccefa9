# SPDX-License-Identifier: Apache-2.0
"""What pic_plugin.tools.benchmark measures: ways to keep class weights, side by side."""
