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
  # shellcheck disable=SC2086
  gcc $flags -march=x86-64-$level $wide -DLEVEL=level_$level -c "$here/tile.c" -o "$work/tile-$level.o"
done
# shellcheck disable=SC2086
for file in fused transposed operators; do gcc $flags -march=x86-64 -c "$here/$file.c" -o "$work/$file.o"; done
gcc -shared -s -Wl,--build-id=none -o "$out" "$work"/*.o
