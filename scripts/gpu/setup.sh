# Unpacks `.bundle/` (`npm run bundle:carry`) and puts its Node first in PATH. Source it in the repository's root.
mkdir -p /tmp/zoetrope-node node_modules
[ -x /tmp/zoetrope-node/node ] || { xz -dc .bundle/node.xz >/tmp/zoetrope-node/node && chmod +x /tmp/zoetrope-node/node; }
cp -ru .bundle/node_modules/. node_modules/
# Kernels are compiled on Node's worker threads, of which there are four by default.
export UV_THREADPOOL_SIZE=16
export PATH=/tmp/zoetrope-node:$PATH
