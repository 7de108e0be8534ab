# What this project's scripts need: to be sourced by them. Each function need_* returns 0 where the thing is there,
# installs it where that is possible without asking, and otherwise says in one line what is missing and how to get it.
# They do nothing, and ask nothing of the network, where everything is there.
#
#   need_rust                            cargo, a C linker, and what rust-toolchain.toml names
#   need_nightly COMPONENT...            the pinned nightly toolchain, for what stable ones cannot do
#   need_target TARGET [TOOLCHAIN]       the standard library for a target
#   need_component COMPONENT [TOOLCHAIN]
#   need_commands "COMMAND..." PACKAGE...   commands (names or paths; alternatives by |) out of Debian packages
#   need_libclang                        the library that reads C headers for bindgen
#   need_node                            Node and npm
#   need_modules FOLDER                  the packages that FOLDER/package-lock.json names
#   need_python FOLDER PACKAGE...        PYTHON, if it is set, else an interpreter in FOLDER with packages; sets PYTHON

TOOLS_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# The threads build, Miri and the sanitizer have been tried with it; stable toolchains have none of the three.
NIGHTLY=nightly-2026-05-20

# say LINE: to the person, not into what a script prints.
say() { printf '%s\n' "$*" >&2; }

# quietly COMMAND...: what it printed is shown only if it failed.
quietly() {
    local log
    log=$(mktemp)
    if "$@" >"$log" 2>&1; then
        rm "$log"
        return 0
    fi
    tail -n 5 "$log" >&2
    rm "$log"
    return 1
}

need_commands() {
    local wanted=$1 command alternative found missing=()
    shift
    for command in $wanted; do
        found=
        for alternative in ${command//|/ }; do
            if command -v "$alternative" >/dev/null; then found=1; fi
        done
        [ -n "$found" ] || missing+=("${command%%|*}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    local how="apt-get install --no-install-recommends -y $*"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing $*"
        export DEBIAN_FRONTEND=noninteractive
        # Lists may be absent or old on a fresh machine: they are fetched if it does not work without.
        # shellcheck disable=SC2086
        $how >/dev/null 2>&1 || { quietly apt-get update && quietly $how; } && return 0
    fi
    say "missing: ${missing[*]}. Install: $how"
    return 1
}

need_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] || ldconfig -p 2>/dev/null | grep -q 'libclang[-0-9.]*\.so' ||
        compgen -G '/usr/lib/llvm-*/lib/libclang*.so' >/dev/null && return 0
    local how="apt-get install --no-install-recommends -y libclang-dev"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing libclang-dev"
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive quietly $how && return 0
    fi
    say "missing: libclang. Install: $how"
    return 1
}

need_target() {
    local target=$1 toolchain=${2:-} library
    library=$(cd "$TOOLS_ROOT" &&
        rustc ${toolchain:+"+$toolchain"} --print target-libdir --target "$target" 2>/dev/null) || library=
    # The folder exists for targets that were removed, too.
    [ -n "$library" ] && compgen -G "$library/libcore-*.rlib" >/dev/null && return 0
    local how=(rustup target add "$target" ${toolchain:+--toolchain "$toolchain"})
    if command -v rustup >/dev/null; then
        say "installing Rust's target $target"
        (cd "$TOOLS_ROOT" && quietly "${how[@]}") && return 0
    fi
    say "missing: Rust's target $target. Install: ${how[*]}"
    return 1
}

need_component() {
    local component=$1 toolchain=${2:-}
    local how=(rustup component add "$component" ${toolchain:+--toolchain "$toolchain"})
    if command -v rustup >/dev/null; then
        local installed
        installed=$(cd "$TOOLS_ROOT" &&
            rustup component list --installed ${toolchain:+--toolchain "$toolchain"} 2>/dev/null) || installed=
        # Listed as rust-src, or as clippy-x86_64-unknown-linux-gnu.
        grep -qE "^$component(-.*)?\$" <<<"$installed" && return 0
        say "installing Rust's component $component"
        (cd "$TOOLS_ROOT" && quietly "${how[@]}") && return 0
    else
        # A toolchain from elsewhere, such as a distribution's: the commands may be there.
        case $component in
            rustfmt) command -v rustfmt >/dev/null && return 0 ;;
            clippy) command -v cargo-clippy >/dev/null && return 0 ;;
        esac
    fi
    say "missing: Rust's component $component. Install: ${how[*]}"
    return 1
}

need_rust() {
    if ! command -v cargo >/dev/null; then
        say "missing: Rust. Install: curl --proto '=https' -sSf https://sh.rustup.rs | sh -s -- -y"
        return 1
    fi
    need_commands cc gcc libc6-dev || return 1
    command -v rustup >/dev/null || return 0
    # Depending on its settings, rustup installs the pinned toolchain by itself, later, or not at all.
    if ! (cd "$TOOLS_ROOT" && rustc --version) >/dev/null 2>&1; then
        say "installing the Rust toolchain that rust-toolchain.toml names"
        (cd "$TOOLS_ROOT" && quietly rustup toolchain install --no-self-update) || {
            say "missing: the Rust toolchain that rust-toolchain.toml names. Install: rustup toolchain install"
            return 1
        }
    fi
    # A toolchain that was there before may lack what the file names.
    local name
    for name in $(toolchain_file components); do need_component "$name" || return 1; done
    for name in $(toolchain_file targets); do need_target "$name" || return 1; done
}

# toolchain_file KEY: the strings of a one-line list in rust-toolchain.toml.
toolchain_file() {
    sed -n "s/^$1 *= *\[\(.*\)\]\$/\1/p" "$TOOLS_ROOT/rust-toolchain.toml" | tr -d '",'
}

need_nightly() {
    local component
    if ! command -v rustup >/dev/null; then
        say "missing: rustup, which installs the toolchain $NIGHTLY. Get it from https://rustup.rs"
        return 1
    fi
    if ! rustc "+$NIGHTLY" --version >/dev/null 2>&1; then
        local how=(rustup toolchain install "$NIGHTLY" --no-self-update --profile minimal)
        say "installing the Rust toolchain $NIGHTLY"
        quietly "${how[@]}" || {
            say "missing: the Rust toolchain $NIGHTLY. Install: ${how[*]}"
            return 1
        }
    fi
    for component in "$@"; do need_component "$component" "$NIGHTLY" || return 1; done
}

need_node() {
    need_commands "node npm" nodejs npm || return 1
    node -e 'process.exit(process.versions.node.split(".")[0] >= 20 ? 0 : 1)' && return 0
    say "missing: Node 20 or newer (found $(node --version)). Get it from https://nodejs.org"
    return 1
}

need_modules() {
    # npm writes this file last; a newer lock file means that other packages are wanted.
    [ "$1/node_modules/.package-lock.json" -nt "$1/package-lock.json" ] && return 0
    (cd "$1" && npm ci --no-audit --no-fund --loglevel=error) && return 0
    say "missing: the packages of $1/package-lock.json. Install: (cd $1 && npm ci)"
    return 1
}

need_python() {
    [ -z "${PYTHON:-}" ] || return 0
    local folder=$1
    shift
    if [ "$(cat "$folder/installed" 2>/dev/null)" != "$*" ]; then
        need_commands python3 python3 python3-venv || return 1
        say "installing $* into $folder"
        { quietly python3 -m venv "$folder" && quietly "$folder/bin/python" -m pip install "$@"; } || {
            say "missing: $*. Set PYTHON to an interpreter that has them"
            return 1
        }
        echo "$*" >"$folder/installed"
    fi
    PYTHON=$folder/bin/python
}
