#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The paper's Figure 3 at the scale of the demo: where PIC, a supervised twin and a random network
# look, how the overlap of the first two grows over training, and pictures of two objects.
#     bash docs/results/saliency/reproduce.sh [FOLDER] [SEEDS]
# Numbers: FOLDER/SEED/*/saliency.json and FOLDER/SEED/two_objects/two_objects.json; over seeds:
# FOLDER/saliency_seeds.md, .csv and series.svg.
set -euo pipefail
out=${1:-work_dirs/saliency}
seeds=${2:-0 1 2}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
for seed in $seeds; do
    run=$out/$seed
    keep=(default_hooks.checkpoint.max_keep_ckpts=-1 randomness.seed="$seed")
    python -m pic_plugin.tools.train pic_saliency.py --work-dir "$run/pic" --resume --cfg-options "${keep[@]}"
    python -m pic_plugin.tools.train supervised_demo.py --work-dir "$run/supervised" --resume \
        --cfg-options "${keep[@]}"
    pic=$(< "$run/pic/last_checkpoint")
    supervised=$(< "$run/supervised/last_checkpoint")
    series=(random)
    for epoch in 4 8 16 30; do series+=("$run/pic/epoch_$epoch.pth"); done
    compare=(python -m pic_plugin.tools.saliency pic_saliency.py)
    "${compare[@]}" "${series[@]}" --against "$supervised" --out "$run/pic_supervised" --num-images 200
    "${compare[@]}" "$pic" --against random --out "$run/pic_random" --num-images 200
    "${compare[@]}" "$supervised" --against random --out "$run/supervised_random" --num-images 200
    python -m pic_plugin.tools.two_objects pic_saliency.py "$pic" "$supervised" random \
        --names PIC supervised random --out "$run/two_objects"
done
python -m pic_plugin.tools.saliency_seeds "$out" --out "$out"
