#!/usr/bin/env bash
# Everything that wants a GPU, in one call of under nine minutes: the cases of all operators, the rungs of the ladder in
# every precision and tile (which shows whether the tensor cores' fragments lie as kernels/mma.cuh says), captured graphs
# and the golden networks on the device, compute-sanitizer over cases, rungs and graphs, times of the operators beside
# PyTorch's, of the ladders, and of training steps.
#
#     benches/gpu_check.sh build BIN          on a machine with Rust: what the other one needs, stripped
#     benches/gpu_check.sh run BIN RESULTS    on the machine with the GPU (no Rust, no network needed)
set -euo pipefail
cd "$(dirname "$0")/.."

build() {
    local bin=$1
    mkdir -p "$bin"
    cargo build --release --locked
    cp target/release/atrous "$bin/atrous"
    # name kind: cargo tells where it put each.
    local names=(device golden_nets)
    cargo test --release --locked --no-run --test device --test golden_nets --message-format=json >"$bin/built.json"
    for name in "${names[@]}"; do
        local path
        path=$(grep -o "\"executable\":\"[^\"]*/${name}-[0-9a-f]*\"" "$bin/built.json" | tail -n 1 | cut -d'"' -f4)
        cp "$path" "$bin/$name"
    done
    rm "$bin/built.json"
    strip "$bin"/*
    du -sh "$bin"
}

run() {
    local bin results
    bin=$(cd "$1" && pwd)
    mkdir -p "$2"
    results=$(cd "$2" && pwd)
    export ATROUS_TEST_DEVICE=cuda ATROUS_CACHE=$results/cache
    local failed=0
    # part SECONDS NAME COMMAND…: into its own file; one part that fails does not stop the others.
    part() {
        local seconds=$1 name=$2
        shift 2
        printf '== %s: %s\n' "$name" "$*"
        timeout "$seconds" "$@" >"$results/$name.txt" 2>&1 && printf '   fine\n' || {
            printf '   FAILED (%s)\n' "$?"
            failed=1
        }
        tail -n 4 "$results/$name.txt"
    }
    {
        date -u +%F
        nvidia-smi --query-gpu=name,driver_version,clocks.sm,power.limit --format=csv
        "$bin/atrous" doctor --device cuda
        python3 -c 'import torch; print("PyTorch", torch.__version__, "CUDA", torch.version.cuda, "cuDNN", torch.backends.cudnn.version())'
    } 2>&1 | tee "$results/machine.txt"
    part 40 cases "$bin/device" --nocapture
    part 60 networks "$bin/golden_nets" --nocapture device
    part 80 memcheck compute-sanitizer --tool memcheck --error-exitcode 1 "$bin/device" real
    part 80 racecheck compute-sanitizer --tool racecheck --error-exitcode 1 "$bin/device" real
    part 45 ops "$bin/atrous" bench ops --device cuda --save "$results/ops.jsonl"
    part 45 torch python3 benches/peers/torch_gpu.py
    for operator in conv2d gemm depthwise_conv2d batch_norm reduce; do
        part 12 "ladder_$operator" "$bin/atrous" bench "$operator" --ladder --device cuda
    done
    for precision in f32 tf32 bf16; do
        part 60 "nets_$precision" "$bin/atrous" bench nets --device cuda --precision "$precision" --save "$results/nets.jsonl"
    done
    rm -rf "$results/cache"
    return "$failed"
}

case ${1:-} in
build) build "$2" ;;
run) run "$2" "$3" ;;
*)
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
