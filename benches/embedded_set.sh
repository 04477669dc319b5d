#!/usr/bin/env bash
# Every network with both presets on the made-up pictures, under an equal, capped budget:
#
#     benches/embedded_set.sh OUT [ATROUS]
#
# 749 training and 200 validation pictures, all networks from random weights (there are no pre-trained
# ones for these pictures), and so many epochs as fit into about four minutes on two cores of an AMD EPYC
# with AVX-512. `notebook` is the notebook's recipe at the notebook's size; `best` is the default
# recipe, at 112 pixels (AlexNet-like: 150, the least its strides allow well): smaller pictures are
# seen oftener in the same time. The recipes' rates were chosen on other made-up pictures (seed 0).
#
# It may be stopped and started again: what is done is not done twice. OUT/table.md has the results.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,14s/^# \{0,1\}//p' "$0" >&2; exit 2; }
out=$1
atrous=${2:-$(dirname "$0")/../target/release/atrous}
data=$out/data
mkdir -p "$out"

[ -f "$data/test/test_set.csv" ] || { rm -rf "$data"; "$atrous" data make "$data" --train 949 --test 100 --seed 1; }

# column NAME FILE: the column's values.
column() {
    awk -F, -v name="$1" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) at = i; next } { print $at }' "$2"
}

# train TASK NETWORK PRESET SIZE EPOCHS
train() {
    local task=$1 network=$2 preset=$3 size=$4 epochs=$5
    local run=$out/$network-$preset log=$out/$network-$preset.log
    [ ! -f "$run.row" ] || return 0
    local resume=()
    [ ! -f "$run/checkpoint.safetensors" ] || resume=(--resume)
    printf '%s, %s: %s\n' "$network" "$preset" "$log" >&2
    local began=$SECONDS
    "$atrous" train "$task" --model "$network" --preset "$preset" --size "$size" --epochs "$epochs" \
        --val-fraction 0.2107 --data "$data" --out "$run" "${resume[@]}" >>"$log" 2>&1
    local time="$((SECONDS - began)) s" memory score
    [ ${#resume[@]} = 0 ] || time="resumed"
    memory=$(sed -n 's/.*at most \([0-9]* MiB\)).*/\1/p' "$log" | tail -n 1)
    case $task in
    classify) score="mAP $(column val_map "$run/history.csv" | sort -g | tail -n 1)" ;;
    segment)
        score="mean IoU $(column val_miou "$run/history.csv" | sort -g | tail -n 1)"
        score+=", Dice $(column val_dice "$run/history.csv" | sort -g | tail -n 1)"
        ;;
    esac
    # Three digits are more than a run tells.
    score=$(sed -E 's/([0-9]\.[0-9]{3})[0-9]*/\1/g' <<<"$score")
    printf '| %s | %s | %s | %s | %s | %s | %s |\n' \
        "$network" "$preset" "$size" "$epochs" "$score" "$time" "$memory" >"$run.row.part"
    mv "$run.row.part" "$run.row"
}

# Epochs: four minutes over the seconds an epoch took (validation included) on an otherwise idle machine.
train classify alexnet best 150 24
train classify alexnet notebook 150 24
train segment deeplabv3plus best 112 12
train segment deeplabv3plus notebook 224 2
train classify mobilenetv2 best 112 40
train classify mobilenetv2 notebook 256 10
train classify mobilenet best 112 40
train classify mobilenet notebook 224 14
train classify resnet50v2 best 112 14
train classify resnet50v2 notebook 224 4
train classify vgg16 best 112 5
train classify vgg16 notebook 224 2

{
    printf '| network | preset | side | epochs | best validation | time | peak memory |\n|---|---|---|---|---|---|---|\n'
    for network in alexnet vgg16 resnet50v2 mobilenet mobilenetv2 deeplabv3plus; do
        cat "$out/$network-notebook.row" "$out/$network-best.row"
    done
} >"$out/table.md"
cat "$out/table.md"
