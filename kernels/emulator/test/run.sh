#!/usr/bin/env bash
# Proves that the net catches fish: builds the emulator with planted mistakes, plain and under the sanitizers, and
# fails unless every mistake is found and every good kernel is left alone. Needs g++ 12 or later; no GPU.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
export ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0 TSAN_OPTIONS=halt_on_error=1

cat >"$out/planted.cpp" <<'C'
#define ATROUS_UNIT "planted"
#include "emulator/test/planted.cu"
ATROUS_KERNEL(good_sum);
ATROUS_KERNEL(good_reverse);
ATROUS_KERNEL(good_any);
ATROUS_KERNEL(good_mma);
ATROUS_KERNEL(bad_global_read);
ATROUS_KERNEL(bad_shared_read);
ATROUS_KERNEL(bad_missing_barrier);
ATROUS_KERNEL(bad_divergent_barrier);
ATROUS_KERNEL(bad_unwritten);
ATROUS_KERNEL(bad_race);
C

# build NAME FLAGS_OF_KERNELS -- FLAGS_OF_RUNTIME
build() {
    local name=$1 kernels=() runtime=()
    shift
    while [ "$1" != -- ]; do kernels+=("$1"); shift; done
    shift
    runtime=("$@")
    local common=(-std=c++17 -I. -Wall -Wextra -Wno-unknown-pragmas)
    for file in emulator/{fiber,launch,operations,scheduler}.cpp; do
        g++ "${common[@]}" "${runtime[@]}" -c "$file" -o "$out/$name-$(basename "$file").o"
    done
    g++ "${common[@]}" "${kernels[@]}" "$out/planted.cpp" emulator/test/test.cpp "$out/$name"-*.o -o "$out/$name" -lpthread
}

# finds BUILD KERNEL WORDS: the run fails, and its report has the words.
finds() {
    local report=$out/report
    if "$out/$1" "$2" >"$report" 2>&1; then
        echo "FAILS: $1 does not find $2" >&2
        return 1
    fi
    grep -q "$3" "$report" || { echo "FAILS: $1 says something else of $2:" >&2; head -n 20 "$report" >&2; return 1; }
    echo "holds: $1 finds $2"
}

clean() {
    "$out/$1" good >"$out/report" 2>&1 || { echo "FAILS: $1 complains about good kernels:" >&2; head -n 20 "$out/report" >&2; return 1; }
    echo "holds: $1 leaves good kernels alone"
}

build plain -O2 -march=x86-64-v3 -- -O2 &
build address -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined '-fsanitize-sections=atrous_shared_*' \
    -- -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined &
build thread -O1 -g -fsanitize=thread -- -O1 -g -DATROUS_EMULATOR_TSAN &
for job in $(jobs -p); do wait "$job"; done

"$out/plain"
clean address
finds address bad_global_read 'heap-buffer-overflow'
finds address bad_shared_read 'planted.cu.*out of bounds'
clean thread
finds thread bad_missing_barrier 'data race'
finds thread bad_race 'data race'
