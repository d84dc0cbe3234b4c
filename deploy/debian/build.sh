#!/bin/bash
# build.sh WHEEL TREE FOLDER: make the package's files in TREE, and FOLDER/decaf-node_VERSION_ARCH.deb of them, for this
# machine's distribution.
# TORCH is the torch in it, as pip takes it, or "system": none, and the machine's own is used (see docs/packages.md).
set -euo pipefail
wheel=$(realpath "$1") tree=$(realpath -m "$2") out=$(realpath "$3")
cd "$(dirname "$0")/../.."
here=deploy/debian
: "${TORCH:?}"
app=$tree/usr/lib/decaf-node
version=$(basename "$wheel" | cut -d- -f2)

say() { echo "$*" >&2; }

environment() { # a virtual environment that knows nothing of the folder it was made in
    local needs=("$wheel[train,gguf,otel,privacy]")
    if [[ $TORCH == system ]]; then
        needs+=(--overrides $here/without-torch.txt)
    else
        needs+=("$TORCH")
    fi
    /usr/bin/python3 -m venv --without-pip "$app"
    grep -v "^torch==" constraints.txt >"$tree.constraints" # which torch, TORCH says
    UV_FIND_LINKS=${PIP_FIND_LINKS:-} UV_EXTRA_INDEX_URL=${PIP_EXTRA_INDEX_URL:-} .venv/bin/uv pip install --quiet \
        --index-strategy unsafe-best-match --python "$app/bin/python" --constraints "$tree.constraints" \
        "${needs[@]}"
    rm "$tree.constraints"
    sed -i '/^command/d' "$app/pyvenv.cfg"
    if [[ $TORCH == system ]]; then
        sed -i 's/^include-system-site-packages = .*/include-system-site-packages = true/' "$app/pyvenv.cfg"
    fi
    find "$app/bin" -type f -delete
    find "$app" \( -name direct_url.json -o -name uv_cache.json \) -delete
    rm -rf "$app/share" "$app/etc" "$app/include" "$app/.lock"
    /usr/bin/python3 -m compileall -qq -j 0 -s "$tree" -p / "$app/lib" || true # some packages carry templates named .py
}

files() { # all that is not Python
    install -D -m 755 $here/decaf-node "$tree/usr/bin/decaf-node"
    install -D -m 644 -t "$tree/usr/lib/systemd/system" systemd/*.service
    install -D -m 644 -t "$tree/usr/lib/systemd/user" systemd/user/*.service
    if (($(systemctl --version | awk 'NR == 1 { print $2 }') >= 254)); then
        for unit in decaf-node decaf-node@; do
            install -D -m 644 -t "$tree/usr/lib/systemd/system/$unit.service.d" systemd/growing-delay.conf
        done
    fi
    install -D -m 644 systemd/decaf-node.sysusers "$tree/usr/lib/sysusers.d/decaf-node.conf"
    install -D -m 644 systemd/decaf-node.tmpfiles "$tree/usr/lib/tmpfiles.d/decaf-node.conf"
    install -D -m 644 -t "$tree/usr/share/doc/decaf-node" $here/copyright
    gzip -9n <CHANGELOG.md >"$tree/usr/share/doc/decaf-node/changelog.gz"
    install -D -m 644 $here/lintian-overrides "$tree/usr/share/lintian/overrides/decaf-node"
}

control() {
    local python size
    python=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    size=$(du -s --apparent-size --block-size=1K "$tree" | cut -f1)
    install -d "$tree/DEBIAN"
    (cd "$tree" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$tree/DEBIAN/md5sums"
    sed -e "s/@VERSION@/$version/" -e "s/@ARCH@/$(dpkg --print-architecture)/" -e "s/@SIZE@/$size/" \
        -e "s/@PYTHON@/$python/" -e "s/@NEXT@/3.$((${python#3.} + 1))/" $here/control >"$tree/DEBIAN/control"
    install -m 755 -t "$tree/DEBIAN" $here/{postinst,prerm,postrm}
    install -m 644 -t "$tree/DEBIAN" $here/templates
}

rm -rf "$tree"
umask 022
say "Installing what decaf-node needs into $app ..."
environment
files
control
say "Packing ..."
if [[ -z ${DPKG_DEB_COMPRESSOR_TYPE:-} ]]; then # xz, the default, is slow for so much
    export DPKG_DEB_COMPRESSOR_TYPE=zstd DPKG_DEB_COMPRESSOR_LEVEL=6
fi
dpkg-deb --root-owner-group --build "$tree" "$out" >&2
