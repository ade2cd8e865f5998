#!/bin/sh
# Starts Zoetrope on the Node that lies beside this file, from any folder, also through a symbolic link.
program=$0
if [ -h "$program" ]; then program=$(readlink -f "$program"); fi
here=${program%/*}
# Kernels are compiled on Node's worker threads, of which there are four by default.
export UV_THREADPOOL_SIZE="${UV_THREADPOOL_SIZE:-16}"
exec "$here/bin/node" "$here/bin/zoetrope.js" "$@"
