#!/usr/bin/env bash
# Everything that wants a GPU. `tests`: the cases of all operators, the rungs of the ladder in every precision and tile,
# captured graphs, augmentation, optimizers, the golden networks and training runs on the device. `times`: operators and
# networks beside PyTorch's. `ladders`: their rungs. `profiles`: what each kernel takes of a network. `sanitizers`:
# compute-sanitizer over cases, rungs and graphs. All of it takes some fifteen minutes; PARTS, `tests,times` say, are some of it.
#
#     benches/gpu_check.sh build BIN                  on a machine with Rust: what the other one needs, stripped
#     benches/gpu_check.sh run BIN RESULTS [PARTS]    on the machine with the GPU (no Rust, no network needed)
set -euo pipefail
cd "$(dirname "$0")/.."

build() {
    local bin=$1
    mkdir -p "$bin"
    cargo build --release --locked
    cp target/release/atrous "$bin/atrous"
    # name kind: cargo tells where it put each.
    local names=(device golden_nets training)
    cargo test --release --locked --no-run --test device --test golden_nets --test training --message-format=json >"$bin/built.json"
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
    local bin results what=${3:-tests,times,ladders,profiles,sanitizers}
    bin=$(cd "$1" && pwd)
    mkdir -p "$2"
    results=$(cd "$2" && pwd)
    export ATROUS_TEST_DEVICE=cuda ATROUS_CACHE=$results/cache ATROUS_GOLDEN=$PWD/tests/golden
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
    case $what in *tests*)
        part 60 cases "$bin/device" --nocapture
        part 60 networks "$bin/golden_nets" --nocapture device
        part 60 training "$bin/training" --nocapture device
        ;;
    esac
    case $what in *times*)
        for precision in f32 tf32; do
            part 75 "ops_$precision" "$bin/atrous" bench ops --device cuda --precision "$precision" --save "$results/ops_$precision.jsonl"
            part 75 "torch_ops_$precision" python3 benches/peers/torch_ops.py --device cuda --precision "$precision"
        done
        for precision in f32 tf32 bf16; do
            part 45 "nets_$precision" "$bin/atrous" bench nets --device cuda --precision "$precision" --save "$results/nets_$precision.jsonl"
        done
        part 400 torch_nets python3 benches/peers/torch_gpu.py --minutes 6
        ;;
    esac
    case $what in *ladders*)
        for operator in conv2d gemm depthwise_conv2d batch_norm reduce; do
            part 15 "ladder_$operator" "$bin/atrous" bench "$operator" --ladder --device cuda
        done
        ;;
    esac
    case $what in *profiles*)
        for net in deeplabv3plus mobilenetv2_full alexnet resnet50v2_frozen; do
            part 20 "profile_$net" env ATROUS_CUDA_PROFILE=1 "$bin/atrous" bench nets "$net" --device cuda --precision tf32
        done
        ;;
    esac
    case $what in *sanitizers*)
        part 120 memcheck compute-sanitizer --tool memcheck --error-exitcode 1 "$bin/device" real
        part 120 racecheck compute-sanitizer --tool racecheck --error-exitcode 1 "$bin/device" real
        ;;
    esac
    rm -rf "$results/cache"
    return "$failed"
}

case ${1:-} in
build) build "$2" ;;
run) run "$2" "$3" "${4:-}" ;;
*)
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
