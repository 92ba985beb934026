#!/usr/bin/env bash
# Builds the program for distribution: one archive per build, with completions, manual pages and licences, in target/dist.
#   tools/dist.sh           everything
#   tools/dist.sh serve     the server alone: no Burn, runs compiled files
set -euo pipefail
cd "$(dirname "$0")/.."

features=()
name=cardinal
if [ "${1:-}" = serve ]; then
    features=(--no-default-features --features serve)
    name=cardinal-serve
fi
cargo build --profile dist --locked -p cardinal-cli "${features[@]}"

version=$(target/dist/cardinal --version | cut -d' ' -f2)
host=$(rustc -vV | sed -n 's/^host: //p')
folder=target/dist/$name-$version-$host
rm -rf "$folder"
mkdir -p "$folder"
cp target/dist/cardinal README.md CHANGELOG.md LICENSE-APACHE LICENSE-MIT "$folder"
# The server alone has one command and its --help.
if [ "$name" = cardinal ]; then
    mkdir "$folder/completions"
    for shell in bash zsh fish elvish powershell; do
        target/dist/cardinal completions "$shell" > "$folder/completions/cardinal.$shell"
    done
    target/dist/cardinal man --output "$folder/man"
fi
CARDINAL_LICENCES="$PWD/$folder/THIRD-PARTY.txt" cargo test --release --workspace --quiet --locked --test licences
tar -C target/dist -czf "$folder.tar.gz" "$(basename "$folder")"
(cd target/dist && sha256sum "$(basename "$folder").tar.gz" > "$(basename "$folder").tar.gz.sha256")
ls -l "$folder/cardinal" "$folder.tar.gz"
