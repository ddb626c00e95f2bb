#!/usr/bin/env bash
# Builds the tools of QEMU 5.2 with the sheepdog driver, which QEMU dropped in 6.1 and Debian never compiled in: Debian
# bullseye's source package, fetched through an apt root of its own. Takes 3 to 7 minutes, once; may be interrupted and
# repeated at any moment.
#
#   qemu52.sh           builds what is not there yet; prints the directory of qemu-img, qemu-io and qemu-nbd
#   qemu52.sh --needs   prints the Debian packages that the build needs, or nothing when there is nothing left to build
#
# COLLIE_QEMU52 names the directory of a build made elsewhere. Else it is <cache>/collie-test/qemu52/bin, <cache> being
# XDG_CACHE_HOME or ~/.cache. JOBS: how many compilers run at a time.
set -euo pipefail

packages=(
  build-essential pkg-config ninja-build meson python3 flex bison xz-utils bzip2
  libglib2.0-dev libpixman-1-dev zlib1g-dev libaio-dev debian-archive-keyring
)
tools=(qemu-img qemu-io qemu-nbd)
home=${XDG_CACHE_HOME:-$HOME/.cache}/collie-test/qemu52
bin=${COLLIE_QEMU52:-$home/bin}

# A build may lack its libraries by now, so it has to run.
is_ready() {
  local tool
  for tool in "${tools[@]}"; do "$bin/$tool" --version >/dev/null 2>&1 || return 1; done
  "$bin/qemu-img" --help | grep -qw sheepdog
}

say() { echo "qemu52: $*" >&2; }

# Runs a step with its output in a log, of which the end is shown when it fails.
step() {
  local title=$1
  shift
  say "$title"
  "$@" >"$home/log" 2>&1 || {
    tail -n 40 "$home/log" >&2
    say "failed: $title (the whole log: $home/log)"
    return 1
  }
}

# Fetches the source package; apt verifies it and takes up what is there.
fetch() (
  mkdir -p "$home"/apt/{lists/partial,cache/archives/partial}
  cd "$home/apt"
  : >status
  # The mirror that the system uses already.
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -E '/debian/?$' | sort -u | head -n 1)
  echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian} bullseye main" >sources.list
  options=(
    -q -o Dir::Etc::sourcelist="$PWD/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::State::Lists="$PWD/lists"
    -o Dir::State::status="$PWD/status" -o Dir::Cache="$PWD/cache" -o APT::Sandbox::User=root
  )
  apt-get "${options[@]}" update
  apt-get "${options[@]}" source --download-only qemu
)

unpack() {
  rm -rf "$home/source" "$home/source.part"
  mkdir "$home/source.part"
  tar -xJf "$home"/apt/qemu_5.2*.orig.tar.xz -C "$home/source.part" --strip-components=1
  : >"$home/source.part/pc-bios/meson.build" # Debian's archive is without the firmware
  mv "$home/source.part" "$home/source"
}

configure() (
  rm -rf "$home/source/build"
  mkdir "$home/source/build"
  cd "$home/source/build"
  # Everything that is not needed is off by name, so that what happens to be installed changes nothing.
  ../configure --meson=meson --ninja=ninja --enable-sheepdog --enable-tools --enable-linux-aio \
    --target-list=x86_64-softmmu --disable-werror --disable-docs --disable-guest-agent --disable-gtk --disable-sdl \
    --disable-vnc --disable-spice --disable-opengl --disable-curl --disable-gnutls --disable-nettle --disable-gcrypt \
    --disable-slirp --disable-capstone --disable-fdt --disable-libusb --disable-vhost-user --disable-vhost-net \
    --disable-xen --disable-kvm --disable-libiscsi --disable-rbd --disable-libnfs --disable-libssh --disable-glusterfs \
    --disable-smartcard --disable-curses --disable-brlapi --disable-virtfs --disable-mpath --disable-blobs \
    --disable-seccomp --disable-linux-io-uring
  touch configured
)

# Shows how far it is every 200 steps.
compile() (
  cd "$home/source/build"
  nice ninja -j "${JOBS:-$(nproc)}" "${tools[@]}" | tee "$home/log" |
    awk '/^\[[0-9]+\/[0-9]+\]/ && ++count % 200 == 1 { print "qemu52: compiling", $1 > "/dev/stderr"; fflush("/dev/stderr") }'
)

install_tools() {
  rm -rf "$home/bin.part"
  mkdir "$home/bin.part"
  for tool in "${tools[@]}"; do install -s "$home/source/build/$tool" "$home/bin.part/$tool"; done
  rm -rf "$home/bin"
  mv "$home/bin.part" "$home/bin"
}

if is_ready; then
  [ "${1:-}" = --needs ] || echo "$bin"
  exit
fi
if [ "${1:-}" = --needs ]; then
  echo "${packages[@]}"
  exit
fi
if [ -n "${COLLIE_QEMU52:-}" ]; then
  say "COLLIE_QEMU52 is set, but $bin holds no tools of QEMU 5.2 that run"
  exit 1
fi

mkdir -p "$home"
exec 9>"$home/lock"
flock 9 # another run may be building the same
if ! is_ready; then
  step 'fetching the source of QEMU 5.2' fetch
  [ -d "$home/source" ] || step unpacking unpack
  [ -e "$home/source/build/configured" ] || step configuring configure
  compile || { tail -n 40 "$home/log" >&2; say 'failed: compiling'; exit 1; }
  step installing install_tools
  is_ready || { say 'what was built does not run'; exit 1; }
  rm -rf "$home/apt" "$home/source" "$home/log"
fi
echo "$bin"
