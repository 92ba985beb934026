#!/bin/bash
# cargo-arm64.sh ARGS...: cargo for aarch64-unknown-linux-gnu, with tests run under qemu-aarch64. The first run unpacks a
# Rust compiler from Debian's packages under $CARDINAL_EMU (default ~/emu). See emulate.md.
set -euo pipefail
E=${CARDINAL_EMU:-$HOME/emu}
D=$E/rust-arm64

setup() {
    if [ "$(id -u)" = 0 ]; then
        apt-get install -y --no-install-recommends gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static
    fi
    mkdir -p "$E"/apt/{lists/partial,cache/archives/partial,debs} && cd "$E/apt/debs"
    # sid's packages are only unpacked; the system's apt sources stay as they are
    local mirror t
    mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -m1 '/debian/$')
    echo "deb [arch=amd64,arm64] $mirror sid main" > ../sources.list
    : > ../status
    cat > ../apt.conf <<END
Dir::Etc::sourcelist "$E/apt/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::Lists "$E/apt/lists";
Dir::State::status "$E/apt/status";
Dir::Cache "$E/apt/cache";
APT::Architectures "amd64,arm64";
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
END
    export APT_CONFIG=$E/apt/apt.conf
    apt-get update
    # rustc, the libraries it needs, and both architectures' standard libraries
    apt-get download rustc libstd-rust-dev:arm64 \
        $(apt-cache depends --recurse --important libstd-rust-dev:amd64 | grep '^[a-z]' | grep -v debconf | sort -u)
    for t in *.deb; do dpkg -x "$t" "$D"; done
    # They run with their own C library, which is newer than the system's.
    for t in rustc rustdoc; do
        mv "$D/usr/bin/$t" "$D/usr/bin/$t.bin"
        cat > "$D/usr/bin/$t" <<END
#!/bin/sh
case " \$* " in *" --sysroot"*) ;; *) set -- --sysroot "$D/usr" "\$@" ;; esac
exec "$D/usr/lib64/ld-linux-x86-64.so.2" --library-path "$D/usr/lib/x86_64-linux-gnu" "$D/usr/bin/$t.bin" "\$@"
END
        chmod +x "$D/usr/bin/$t"
    done
    touch "$D/ready"
}
[ -e "$D/ready" ] || (setup) >&2

export RUSTC=$D/usr/bin/rustc RUSTDOC=$D/usr/bin/rustdoc RUSTC_WRAPPER= RUSTC_WORKSPACE_WRAPPER=
export CARGO_BUILD_TARGET=aarch64-unknown-linux-gnu
export CARGO_TARGET_DIR=${ARM64_TARGET_DIR:-/tmp/arm64-target}
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -L /usr/aarch64-linux-gnu"
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
exec cargo "$@"
