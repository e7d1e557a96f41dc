# Sourced by the scripts: a virtual environment with this package and its development tools, made with nothing but
# python3, its venv and its pip. The environment's PIP_* variables count, as for any pip.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

say() { printf '%s\n' "$*"; }

die() {
  printf '%s\n' "$*" >&2
  exit 1
}

# Runs a command without a sound; its output is shown only if it fails.
quietly() {
  local log status=0
  log=$(mktemp)
  "$@" >"$log" 2>&1 </dev/null || status=$?
  [ "$status" = 0 ] || cat "$log" >&2
  rm -f "$log"
  return "$status"
}

# Prints the first Python that is new enough. A name that is found but does not run (a pyenv shim) is passed over.
find_python() {
  local name
  for name in python3 python3.13 python3.12 python3.11 python3.10; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      say "$name"
      return
    fi
  done
  die "Python 3.10 or later is needed; found: $(python3 --version 2>&1 || true)
To mend it, install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python) and try again."
}

# make_venv DIRECTORY PYTHON [lowest]: ready at once if nothing changed since the last time. With "lowest", every
# dependency of the package has the lowest version that pyproject.toml allows.
make_venv() {
  local venv=$1 python=$2 versions=${3-latest} wanted
  wanted="$versions $root $("$python" --version) $(cksum <pyproject.toml)"
  if [ -x "$venv/bin/python" ] && [ "$(cat "$venv/stamp" 2>/dev/null)" = "$wanted" ]; then
    return
  fi
  "$python" -c 'import venv, ensurepip' 2>/dev/null || die "$python has no venv or no pip.
To mend it, install them (Debian, Ubuntu: apt install python3-venv python3-pip) and try again."
  say "Installing into ${venv#"$root"/} (once; again when pyproject.toml changes) ..."
  quietly "$python" -m venv --clear "$venv" || die "$python could not make $venv; its words stand above."
  install_into "$venv" "$versions" || die "The installation into $venv failed; pip's words stand above."
  say "$wanted" >"$venv/stamp"
}

# Newer pip first: the one that comes with Python 3.10 to 3.13 does not know --group.
install_into() {
  local pip=("$1/bin/python" -m pip --quiet) constraints="$1/constraints.txt"
  quietly "${pip[@]}" install --upgrade "pip>=25.1" || return
  : >"$constraints"
  if [ "$2" = lowest ]; then
    quietly "${pip[@]}" install --no-deps --editable . || return
    "$1/bin/python" scripts/lowest_versions.py >"$constraints" || return
  fi
  quietly "${pip[@]}" install --constraint "$constraints" --editable ".[Flask]" --group dev
}
