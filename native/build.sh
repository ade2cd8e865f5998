#!/bin/sh
# Builds the shared object that the package ships: sh build.sh DIRECTORY. Needs gcc 12 or later.
set -eu
here=$(dirname "$0")
out=$1/libzoetrope-kernels.so
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
flags="-std=gnu11 -O3 -fPIC -fvisibility=hidden -fno-math-errno -fno-trapping-math -ffp-contract=off -Wall -Wextra -Werror -g0"
for level in v2 v3 v4; do
  wide=$([ $level = v4 ] && echo -mprefer-vector-width=512 || true)
  for file in tile product; do
    contract=$([ $file = product ] && echo -ffp-contract=fast || true)
    # shellcheck disable=SC2086
    gcc $flags $contract -march=x86-64-$level $wide -DLEVEL=level_$level -DPRODUCTS=products_$level \
      -c "$here/$file.c" -o "$work/$file-$level.o"
  done
done
# shellcheck disable=SC2086
gcc $flags -march=x86-64-v4 -mavx512bf16 -mprefer-vector-width=512 -c "$here/bfloat.c" -o "$work/bfloat.o"
# shellcheck disable=SC2086
for file in fused transposed convolution attention rounded-attention square rounded sums operators; do gcc $flags -march=x86-64 -c "$here/$file.c" -o "$work/$file.o"; done
gcc -shared -s -Wl,--build-id=none -o "$out" "$work"/*.o
