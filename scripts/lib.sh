# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the scripts share.  Sourced, not run.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/zcache

say() {
    printf '\033[1m%s\033[0m\n' "== $*" >&2
}

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# libfuse releases that we take, newest first: version and SHA-256 of the release file.  The wrap
# files in subprojects/ name the same.
fuse_releases='3.18.3 bcd19582c5e30f7fe45dd86a5540e998590aa01903afc7ebcbeea6c8ac5421ee
3.17.2 3d932431ad94e86179e5265cddde1d67aa3bb2fb09a5bd35c641f86f2b5ed06f'

fuse_has() { # VERSION HASH: is its release file in place, with the right bytes?
    echo "$2  $root/subprojects/packagecache/fuse3_$1.orig.tar.gz" |
        sha256sum --check --status 2>/dev/null
}

system_fuse_is_new() {
    pkg-config --atleast-version=3.17 fuse3 2>/dev/null
}

# Puts a libfuse release file into subprojects/packagecache, where meson looks before it downloads.
# Debian carries upstream's own release file in its pool, so any Debian mirror has it; its address
# comes from the machine's own apt sources.  Elsewhere meson takes it from upstream's release page.
fuse_fetch() {
    local version hash file uri tmp
    system_fuse_is_new && return 0
    while read -r version hash; do
        fuse_has "$version" "$hash" && return 0
    done <<<"$fuse_releases"
    mkdir -p "$root/subprojects/packagecache" "$cache"
    while read -r version hash; do
        file=fuse3_$version.orig.tar.gz
        if ! echo "$hash  $cache/$file" | sha256sum --check --status 2>/dev/null; then
            tmp=$cache/.$file.$$
            for uri in $(apt_pools); do
                if /usr/lib/apt/apt-helper download-file "${uri%/}/pool/main/f/fuse3/$file" "$tmp" \
                    "SHA256:$hash" >/dev/null 2>&1; then
                    mv "$tmp" "$cache/$file"
                    break
                fi
                rm -f "$tmp"
            done
        fi
        if [ -e "$cache/$file" ]; then
            cp "$cache/$file" "$root/subprojects/packagecache/$file"
            return 0
        fi
    done <<<"$fuse_releases"
    say "no Debian mirror has a libfuse release; meson will try upstream's own address"
}

apt_pools() { # the base addresses of this machine's Debian archives
    command -v apt-get >/dev/null || return 0
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 2>/dev/null |
        sort -u
}

# The meson option for what is there.
fuse_option() {
    local newest oldest
    newest=$(head -n 1 <<<"$fuse_releases")
    oldest=$(tail -n 1 <<<"$fuse_releases")
    # shellcheck disable=SC2086
    if ! system_fuse_is_new && ! fuse_has $newest && fuse_has $oldest; then
        echo "-Dfuse=${oldest%% *}"
    else
        echo "-Dfuse=auto"
    fi
}

# meson unpacks and patches a subproject once; when its wrap file changed since, it is unpacked anew.
fuse_refresh() {
    local wrap dir mark
    for wrap in "$root"/subprojects/*.wrap; do
        dir=$root/subprojects/$(sed -n 's/^directory = //p' "$wrap")
        mark=$dir/.meson-subproject-wrap-hash.txt
        [ -d "$dir" ] || continue
        [ "$(cat "$mark" 2>/dev/null)" = "$(sha256sum "$wrap" | cut -d ' ' -f 1)" ] || rm -rf "$dir"
    done
}

# configure DIR MESON-OPTION...: makes or updates a build directory; CC counts only when it is made.
configure() {
    local dir=$1 mode=()
    shift
    fuse_refresh
    [ ! -e "$dir/build.ninja" ] || mode=(--reconfigure)
    meson setup "${mode[@]}" "$dir" "$root" "$(fuse_option)" "$@"
}
