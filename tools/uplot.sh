#!/bin/bash
# uplot.sh [VERSION INTEGRITY]: fetch uPlot, which draws the dashboard's curves, from the npm registry into the package.
# INTEGRITY is what the registry says of that version (`npm view uplot@VERSION dist.integrity`); needs npm and openssl.
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1:-1.6.32}
integrity=${2:-sha512-KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw==}
here=decaf_node/daemon/page/uplot
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

npm pack --silent --pack-destination "$work" "uplot@$version" >/dev/null
got=sha512-$(openssl dgst -sha512 -binary "$work/uplot-$version.tgz" | openssl base64 -A)
if [[ $got != "$integrity" ]]; then
    echo "uplot $version is not the file that was looked at: $got" >&2
    exit 1
fi
tar -xzf "$work/uplot-$version.tgz" -C "$work"
mkdir -p "$here"
cp "$work/package/dist/uPlot.iife.min.js" "$here/uPlot.js"
cp "$work/package/dist/uPlot.min.css" "$here/uPlot.css"
cp "$work/package/LICENSE" "$here/LICENSE"
cat >"$here/VERSION" <<END
uPlot $version, https://github.com/leeoniya/uPlot, MIT: dist/uPlot.iife.min.js and dist/uPlot.min.css of the npm package
$integrity
Fetched by tools/uplot.sh.
END
echo "uPlot $version is in $here."
