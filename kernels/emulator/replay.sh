#!/usr/bin/env bash
# Records all launches of all tiny cases on the emulated device and runs them again under AddressSanitizer with
# UndefinedBehaviorSanitizer, and under ThreadSanitizer. Needs cargo and g++ 12 or later; no GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
export ASAN_OPTIONS=detect_leaks=0 TSAN_OPTIONS=halt_on_error=1

ATROUS_RECORD=$out/launches cargo test --release --features emulator --test device -- --ignored launches_are_recorded
ls -l "$out/launches" | awk '{ print $5 / 1048576 " MiB recorded" }'

for file in *.cu ladder/*.cu; do
    name=$(basename "$file" .cu)
    {
        printf '#define ATROUS_UNIT "%s"\n#include "%s"\n' "$name" "$file"
        grep -oE '^KERNEL\([a-z0-9_]+|extern "C" __global__ void (__launch_bounds__\([0-9, ]+\) )?[a-z0-9_]+' "$file" |
            awk -F '[ (]' '{ print "ATROUS_KERNEL(" $NF ");" }'
    } >"$out/$name.cpp"
done

# build NAME FLAGS_OF_KERNELS -- FLAGS_OF_RUNTIME: one object after the other, each build in the background.
build() {
    local name=$1 kernels=() runtime=()
    shift
    while [ "$1" != -- ]; do kernels+=("$1"); shift; done
    shift
    runtime=("$@")
    local common=(-std=c++17 -I. -ffp-contract=off -march=x86-64-v3 -Wno-unknown-pragmas)
    for file in emulator/{fiber,launch,operations,replay,scheduler}.cpp; do
        g++ "${common[@]}" "${runtime[@]}" -c "$file" -o "$out/$name-$(basename "$file").o"
    done
    for file in "$out"/*.cpp; do
        g++ "${common[@]}" "${kernels[@]}" -c "$file" -o "$out/$name-$(basename "$file").o"
    done
    g++ "${kernels[@]}" "$out/$name"-*.o -o "$out/$name" -lpthread
}

build address -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined '-fsanitize-sections=atrous_shared_*' \
    -- -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined &
build thread -O1 -g -fsanitize=thread -- -O1 -g -DATROUS_EMULATOR_TSAN &
for job in $(jobs -p); do wait "$job"; done
for sanitizer in address thread; do
    timeout 600 "$out/$sanitizer" "$out/launches" >"$out/report"
    printf '%s: %s\n' "$sanitizer" "$(head -n 1 "$out/report")"
done
sed -n 's/^ATROUS_KERNEL(\(.*\));/  \1/p' "$out"/*.cpp | sort >"$out/all"
if tail -n +2 "$out/report" | LC_ALL=C sort | LC_ALL=C comm -13 - <(LC_ALL=C sort "$out/all") | grep .; then
    echo "no case launches these kernels" >&2
    exit 1
fi
