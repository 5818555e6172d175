#!/bin/sh
# Install programs from the system's packages where they are missing: system-packages.sh PROGRAM...
# Uses apt (Debian, Ubuntu) with root or sudo; elsewhere it says what to install.
set -u
missing=""
for program in "$@"; do
    command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
[ -z "$missing" ] && exit 0
if ! command -v apt-get >/dev/null 2>&1; then
    echo "Please install with your system's package manager:$missing" >&2
    exit 0
fi
as_root=""
[ "$(id -u)" -eq 0 ] || as_root="sudo"
echo "Installing from the system's packages:$missing"
# shellcheck disable=SC2086
$as_root apt-get update -qq && DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq \
    --no-install-recommends $missing >/dev/null
