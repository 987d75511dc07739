#!/bin/bash
# Install a private Emscripten 3.1.69 (LLVM 19, final relaxed-SIMD opcodes) on
# Debian 12 without touching the system's C library.
#
#   setup-emscripten.sh [options] PREFIX
#
#   PREFIX            folder to install into, for example .toolchain
#   --force           install even if the emcc on PATH is already good enough
#   --llvm=auto       (default) use /usr/lib/llvm-19 if it is there; else install
#                     it with apt-get when root, else unpack it into PREFIX
#   --llvm=system     LLVM 19 from the system's own apt release (needs root)
#   --llvm=private    LLVM 19 unpacked into PREFIX (needs no root)
#   --full            keep the LTO, PIC and test files too (about 1.3 GB more)
#   --check           only say whether the emcc on PATH is good enough
#
# What comes from where:
#   emscripten (arch:all), binaryen, node-acorn and, for binaryen alone, libc6,
#   libstdc++6, libgcc-s1:      Debian 13 (trixie), unpacked into PREFIX only
#   clang-19, lld-19, llvm-19:  this system's own Debian release
# Everything is fetched by apt-get, which checks each package's SHA-256 against
# the archive's signed index. Nothing from trixie is installed in the system:
# its apt lists live in PREFIX, and binaryen runs through its own ld-linux.
set -euo pipefail

SUITE=trixie                   # the one release this layout is tested with
LLVM_VER=19
LAYOUT=2                       # bump when this script's result changes
say()  { printf '[setup-emscripten] %s\n' "$*"; }
die()  { printf '[setup-emscripten] error: %s\n' "$*" >&2; exit 1; }

prefix= ; force=0; llvm=auto; full=0; check=0
for a in "$@"; do case $a in
  --force) force=1;; --full) full=1;; --check) check=1;;
  --llvm=auto|--llvm=system|--llvm=private) llvm=${a#--llvm=};;
  -h|--help) sed -n '2,24p' "$0" | sed 's/^# \{0,1\}//'; exit 0;;
  -*) die "unknown option $a";;
  *) [ -z "$prefix" ] || die "one PREFIX only"; prefix=$a;;
esac; done

tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT

# probe EMCC: builds a relaxed-SIMD module (compile, link, wasm-opt -O2 and the
# JavaScript glue) and looks for the final opcode of i32x4.relaxed_dot (fd 93 02).
probe() {
  cat > "$tmp/p.c" <<'C'
#include <wasm_simd128.h>
__attribute__((used)) void dot(v128_t *d, const v128_t *a) {
  d[0] = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(a[0], a[1], d[0]);
  d[1] = wasm_f32x4_relaxed_madd(a[0], a[1], d[1]);
  d[2] = wasm_i8x16_relaxed_swizzle(a[0], a[1]);
}
int main(void) { return 0; }
C
  rm -f "$tmp/p.js" "$tmp/p.wasm"
  (cd "$tmp" && "$1" -O2 -msimd128 -mrelaxed-simd p.c -o p.js -sEXPORTED_FUNCTIONS=_main,_dot) > "$tmp/p.log" 2>&1 || return 1
  node -e 'const b=require("fs").readFileSync(process.argv[1]);
    for (const o of [[0xfd,0x93,2],[0xfd,0x85,2],[0xfd,0x80,2]])
      if (b.indexOf(Buffer.from(o))<0) process.exit(1)' "$tmp/p.wasm"
}

need=; command -v node >/dev/null || need="$need nodejs"; command -v python3 >/dev/null || need="$need python3"
[ -z "$need" ] || die "missing on this machine (apt-get install$need): node 18 or newer and python3 3.8 or newer are needed"

if [ $check = 1 ] || { [ $force = 0 ] && command -v emcc >/dev/null; }; then
  if command -v emcc >/dev/null && probe emcc; then
    say "emcc on PATH is good: $(command -v emcc) ($(emcc --version | head -1))"
    [ $check = 1 ] && exit 0
    [ -n "$prefix" ] && say "nothing installed (use --force to install anyway)"
    exit 0
  fi
  if command -v emcc >/dev/null; then
    say "emcc on PATH ($(command -v emcc)) cannot build final relaxed SIMD:"
    grep -m1 -iE 'error|exception|Cannot find' "$tmp/p.log" | cut -c1-160 | sed 's/^/    /' || true
  else
    say "no emcc on PATH"
  fi
  [ $check = 1 ] && exit 1
fi

[ -n "$prefix" ] || die "usage: $0 [options] PREFIX"
mkdir -p "$prefix"; prefix=$(cd "$prefix" && pwd -P)
case $prefix in *[[:space:]\'\"\\]*) die "PREFIX may not contain spaces or quotes: $prefix";; esac
em=$prefix/emscripten
unset EM_CONFIG EM_CACHE EM_FROZEN_CACHE EM_LLVM_ROOT EM_BINARYEN_ROOT   # the private copy has its own .emscripten
stamp="layout=$LAYOUT suite=$SUITE llvm=$LLVM_VER/$llvm full=$full prefix=$prefix"
finish() {
  say "$("$em/emcc" --version | head -1)"
  say "disk: $(du -sm "$prefix" | cut -f1) MB in $prefix"
  say "to activate:  . $prefix/activate     (puts $em on PATH)"
}
if [ -f "$prefix/stamp" ] && [ "$(cat "$prefix/stamp")" = "$stamp" ] && probe "$em/emcc"; then
  say "already installed and working"; finish; exit 0
fi

for c in apt-get dpkg-deb tar; do command -v $c >/dev/null || die "$c not found: this script is for Debian; elsewhere install emsdk"; done
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -f $keyring ] || die "$keyring not found (package debian-archive-keyring)"
arch=$(dpkg --print-architecture)
mirror=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(COMPONENT)' 'Created-By: Packages' 2>/dev/null \
         | awk '$2=="Debian" && $3=="main" && $1 !~ /security/ {print $1; exit}')
# Before the first `apt-get update` apt knows addresses only.
[ -n "$mirror" ] || mirror=$(apt-get update --print-uris 2>/dev/null \
         | awk -F"'" '!/security/ && !n && match($2, /\/dists\//) {print substr($2, 1, RSTART); n = 1}')
[ -n "$mirror" ] || die "apt has no source of Debian packages"

rm -f "$prefix/stamp"
work=$prefix/work; rm -rf "$work"
mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/debs"
echo "deb [signed-by=$keyring arch=$arch] $mirror $SUITE main" > "$work/sources.list"
own=(-o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=-
     -o Dir::State::lists="$work/lists" -o Dir::Cache="$work" -o Dir::Cache::archives="$work/archives"
     -o APT::Get::List-Cleanup=0 -o Acquire::Languages=none -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false)
[ "$(id -u)" = 0 ] && own+=(-o APT::Sandbox::User=root)
quiet() { "$@" > "$tmp/q.log" 2>&1 || { tail -20 "$tmp/q.log" >&2; die "failed: $*"; }; }

say "1/5 reading the $SUITE package index from $mirror"
quiet apt-get "${own[@]}" -q update
say "2/5 downloading emscripten and binaryen ($SUITE; SHA-256 checked by apt)"
(cd "$work/debs" && quiet apt-get "${own[@]}" -q download emscripten binaryen node-acorn libc6 libstdc++6 libgcc-s1)
ls "$work/debs" | sed 's/%3a/:/; s/^/      /'

say "3/5 LLVM $LLVM_VER (clang, wasm-ld, llvm-ar ...)"
pk=(clang-$LLVM_VER lld-$LLVM_VER llvm-$LLVM_VER)
sysllvm=/usr/lib/llvm-$LLVM_VER/bin
have_sys() { [ -x $sysllvm/clang ] && [ -x $sysllvm/wasm-ld ] && [ -x $sysllvm/llvm-ar ] && [ -x $sysllvm/llvm-nm ] && [ -x $sysllvm/llvm-objcopy ]; }
mode=$llvm
if [ $mode = auto ]; then
  if have_sys; then mode=system; elif [ "$(id -u)" = 0 ]; then mode=system; else mode=private; fi
fi
if [ $mode = system ]; then
  if ! have_sys; then
    [ "$(id -u)" = 0 ] || die "run as root: apt-get install ${pk[*]}   (or use --llvm=private)"
    say "    apt-get install ${pk[*]}"
    apt-cache show clang-$LLVM_VER >/dev/null 2>&1 || quiet apt-get -q update
    quiet env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "${pk[@]}"
  fi
  have_sys || die "LLVM $LLVM_VER not complete in $sysllvm"
  llvmroot=$sysllvm
else
  apt-cache show clang-$LLVM_VER >/dev/null 2>&1 || die "run 'apt-get update' as root once: no package index for clang-$LLVM_VER"
  mkdir -p "$work/llvm-debs"; rm -rf "$prefix/llvm"; mkdir -p "$prefix/llvm"
  (cd "$work/llvm-debs" && quiet apt-get -q -o Dir::Cache::archives="$work/archives" -o Debug::NoLocking=1 download \
     "${pk[@]}" libllvm$LLVM_VER libclang-cpp$LLVM_VER libclang-common-$LLVM_VER-dev)
  for d in "$work"/llvm-debs/*.deb; do dpkg-deb -x "$d" "$prefix/llvm"; done
  # the packages leave libLLVM outside the tools' own RUNPATH ($ORIGIN/../lib)
  for l in "$prefix"/llvm/usr/lib/*-linux-gnu/lib{LLVM,clang-cpp}.so.$LLVM_VER*; do
    ln -sfn "../../$(basename "$(dirname "$l")")/$(basename "$l")" "$prefix/llvm/usr/lib/llvm-$LLVM_VER/lib/$(basename "$l")"
  done
  llvmroot=$prefix/llvm/usr/lib/llvm-$LLVM_VER/bin
  miss=$(for t in clang wasm-ld llvm-ar llvm-nm llvm-objcopy; do ldd "$llvmroot/$t"; done 2>/dev/null | awk '/not found/{print $1}' | sort -u | tr '\n' ' ')
  [ -z "$miss" ] || die "this system lacks libraries that LLVM $LLVM_VER needs: $miss
    (as root: apt-get install ${pk[*]}, then run this again)"
fi
say "    using $llvmroot"

say "4/5 unpacking into $prefix"
ex=()
if [ $full = 0 ]; then
  s=./usr/share/emscripten; l=$s/cache/sysroot/lib/wasm32-emscripten
  ex=(--exclude="$l/lto" --exclude="$l/lto-pic" --exclude="$l/pic" --exclude="$s/test" --exclude="$s/out"
      --exclude=./usr/share/doc --exclude=./usr/share/doc-base --exclude=./usr/share/lintian)
fi
rm -rf "$em" "$prefix/binaryen" "$work/x"; mkdir -p "$work/x"
dpkg-deb --fsys-tarfile "$work"/debs/emscripten_*.deb | tar -x -C "$work/x" --no-same-owner "${ex[@]}"
mv "$work/x/usr/share/emscripten" "$em"
dpkg-deb -x "$work"/debs/node-acorn_*.deb "$work/x"
mkdir -p "$em/node_modules"; cp -r "$work/x/usr/share/nodejs/acorn" "$em/node_modules/"
# binaryen and the three run-time libraries, used only by binaryen's wrappers
rt=$prefix/binaryen/runtime; mkdir -p "$prefix/binaryen/bin" "$rt"
for p in binaryen libc6 libstdc++6 libgcc-s1; do mkdir -p "$work/b"; dpkg-deb -x "$work"/debs/${p}_*.deb "$work/b"; done
mkdir -p "$rt/bin" "$rt/lib"
cp "$work"/b/usr/bin/wasm* "$rt/bin/"
for f in libbinaryen.so libstdc++.so.6 libgcc_s.so.1 libm.so.6 libc.so.6 libpthread.so.0 libdl.so.2; do
  q=$(find "$work/b" -name "$f" | head -1); [ -n "$q" ] && cp -L "$q" "$rt/lib/$f"
done
ld=$(find "$work/b/usr/lib" -name 'ld-linux*' -type f | head -1); [ -n "$ld" ] || die "no ld-linux in libc6"
cp "$ld" "$rt/lib/ld.so"; chmod +x "$rt/lib/ld.so"
for b in "$rt"/bin/*; do
  n=$(basename "$b")
  printf '#!/bin/sh\nexec %s --library-path %s --argv0 "$0" %s "$@"\n' "$rt/lib/ld.so" "$rt/lib" "$b" > "$prefix/binaryen/bin/$n"
  chmod +x "$prefix/binaryen/bin/$n"
done
# Emscripten's own scripts are CommonJS, whatever package.json stands above PREFIX.
echo '{ "type": "commonjs" }' > "$prefix/package.json"
cat > "$em/.emscripten" <<E
LLVM_ROOT = '$llvmroot'
BINARYEN_ROOT = '$prefix/binaryen'
NODE_JS = '$(command -v node)'
FROZEN_CACHE = True   # only the prebuilt wasm32 libraries; see --full for LTO
LLVM_ADD_VERSION = ''
CLANG_ADD_VERSION = ''
E
cat > "$prefix/activate" <<E
export PATH="$em:\$PATH"
unset EM_CONFIG EMSDK EM_LLVM_ROOT EM_BINARYEN_ROOT
E
rm -rf "$work"

say "5/5 test build (C -> wasm with relaxed SIMD)"
probe "$em/emcc" || { sed 's/^/    /' "$tmp/p.log" | tail -20 >&2; die "the test build failed"; }
printf '%s' "$stamp" > "$prefix/stamp"
finish
