# Unpacks `.bundle/` (see scripts/bundle.ts) and puts its Node first in PATH. Source it in the repository's root.
mkdir -p /tmp/zoetrope-node node_modules
[ -x /tmp/zoetrope-node/node ] || { xz -dc .bundle/node.xz >/tmp/zoetrope-node/node && chmod +x /tmp/zoetrope-node/node; }
cp -ru .bundle/node_modules/. node_modules/
export PATH=/tmp/zoetrope-node:$PATH
