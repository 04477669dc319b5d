#!/usr/bin/env bash
# What each kernel costs on the device: registers a thread, static shared memory a block, spills; and which
# memory instructions its machine code has. Needs no GPU.
#
#     kernels/registers.sh CUDA        writes kernels/registers.md
#     kernels/registers.sh CUDA check  fails where that file says something else, or anything spills
#
# CUDA: a folder with bin/nvcc and bin/cuobjdump (a toolkit, or `nvidia/cu13` of NVIDIA's Python wheels).
set -euo pipefail
export LC_ALL=C
cuda=$1
PATH=$cuda/bin:$PATH  # cuobjdump looks for nvdisasm there
cd "$(dirname "$0")"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Options that a kernel file asks for itself.
options() {
    sed -n 's|^// options: ||p' "$1"
}

rows() {
    local file module architecture
    for file in *.cu ladder/*.cu; do
        module=$(basename "$file" .cu)
        for architecture in sm_80 sm_90a; do
            # shellcheck disable=SC2046
            "$cuda/bin/nvcc" -std=c++17 -I. $(options "$file") -cubin -arch="$architecture" -Xptxas -v \
                -o "$scratch/$module.cubin" "$file" 2>"$scratch/log" || { cat "$scratch/log" >&2; exit 1; }
            "$cuda/bin/cuobjdump" -sass "$scratch/$module.cubin" >"$scratch/sass"
            awk -v module="$module" -v architecture="$architecture" '
                FNR == NR {
                    if (/Function :/) name = $3
                    if (match($0, /(LDG|STG)\.E[A-Z0-9.]*\.128/)) wide[name] = "128-bit"
                    if (/LDGSTS/) async[name] = " LDGSTS"
                    if (/HMMA/) mma[name] = " HMMA"
                    next
                }
                /Compiling entry function/ { match($0, /'"'"'[^'"'"']*'"'"'/); name = substr($0, RSTART + 1, RLENGTH - 2) }
                /spill stores/ { spills = $5 + $9 }
                /Used [0-9]+ registers/ {
                    match($0, /Used [0-9]+/); registers = substr($0, RSTART + 5, RLENGTH - 5)
                    shared = match($0, /[0-9]+ bytes smem/) ? substr($0, RSTART, RLENGTH - 11) : 0
                    printf "| %s | %s | %s | %s | %s | %s |\n", name, architecture, registers, shared, spills, wide[name] async[name] mma[name]
                }' "$scratch/sass" "$scratch/log" | sort
        done
    done
}

{
    echo "# Kernels: registers, shared memory, spills"
    echo
    echo "Made by \`kernels/registers.sh\` with $("$cuda/bin/nvcc" --version | sed -n 's/.*release \([^,]*\),.*/CUDA \1/p'). No GPU is needed to make it: it is what the compiler says."
    echo
    echo "| kernel | architecture | registers a thread | shared bytes a block | spilled bytes | machine code has |"
    echo "|---|---|---|---|---|---|"
    rows
} >"$scratch/table"

if [ "${2:-}" = check ]; then
    diff -u registers.md "$scratch/table" || { echo "kernels/registers.md is old: run kernels/registers.sh" >&2; exit 1; }
    if awk -F'|' '/\| sm_/ && $6 + 0 > 0' registers.md | grep .; then
        echo "these kernels spill registers" >&2
        exit 1
    fi
    echo "$(grep -c '| sm_' registers.md) lines of kernels/registers.md hold, nothing spills"
else
    cp "$scratch/table" registers.md
fi
