#!/usr/bin/env bash
# Makes .venv with what a part of the project needs: `scripts/setup.sh base` (helmsman itself) or `scripts/setup.sh test`
# (base, and what the tests and the training need). A second run is instant; nothing is left outside this directory.
set -euo pipefail
cd "$(dirname "$0")/.."
part="${1:-base}"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

is_root_with_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

# The Python to build on: 3.11 or newer.
find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.11 python3 python3.12 python3.13; do
    [ -n "$candidate" ] && command -v "$candidate" >/dev/null || continue
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$candidate"; return; }
  done
  fail "Python 3.11 or newer is needed and none was found; install it (Debian: apt-get install python3), or name one by PYTHON=…"
}

# Debian splits venv off; without ensurepip a venv has no pip.
need_venv_module() {
  "$1" -c 'import venv, ensurepip' 2>/dev/null && return
  local package="python3-venv"
  if is_root_with_apt; then
    say "$1 comes without its venv module; installing $package"
    apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null
    "$1" -c 'import venv, ensurepip' 2>/dev/null && return
  fi
  fail "$1 comes without its venv module; install it (Debian: sudo apt-get install $package), then run make again."
}

make_venv() {
  [ -x .venv/bin/python ] && .venv/bin/python -m pip --version >/dev/null 2>&1 && return
  local python
  python="$(find_python)"
  need_venv_module "$python"
  say "making .venv with $("$python" --version)"
  "$python" -m venv --clear .venv
}

# A stamp names what it stands for; when that changes, the step is done again.
stamp_of() { echo ".venv/.done-$1-$(cat "requirements/$1.txt" pyproject.toml scripts/setup.sh | sha256sum | cut -c1-16)"; }
done_already() { [ -e "$(stamp_of "$1")" ]; }
mark_done() { rm -f .venv/.done-"$1"-*; touch "$(stamp_of "$1")"; }

install_part() {
  done_already "$1" && return
  say "installing $(grep -vc '^#' "requirements/$1.txt") packages ($1; the first time takes a minute or two)"
  .venv/bin/python -m pip install --quiet --requirement "requirements/$1.txt"
  if [ "$1" = base ]; then .venv/bin/python -m pip install --quiet --no-deps --editable .; fi
  mark_done "$1"
}

torch_version() { sed -n 's/^torch==//p' requirements/train.txt; }
has_torch() { .venv/bin/python -c 'import importlib.metadata as m; m.version("torch")' 2>/dev/null; }

# Never the CUDA build (gigabytes) on a machine without a GPU.
install_torch() {
  local version
  version="$(torch_version)"
  if nvidia-smi >/dev/null 2>&1; then
    say "installing torch $version for this machine's NVIDIA GPU"
    .venv/bin/python -m pip install --quiet "torch==$version" && return
  else
    say "installing torch $version for the CPU"
    .venv/bin/python -m pip install --quiet "torch==$version+cpu" 2>/dev/null && return
    .venv/bin/python -m pip install --quiet "torch==$version+cpu" --index-url https://download.pytorch.org/whl/cpu && return
  fi
  return 1
}

install_train() {
  done_already train && return
  if ! has_torch && ! install_torch; then
    say "torch cannot be had here; the tests that need it will be skipped"
    return
  fi
  grep -v '^torch==' requirements/train.txt > .venv/train-without-torch.txt
  say "installing $(grep -vc '^#' .venv/train-without-torch.txt) packages (train)"
  .venv/bin/python -m pip install --quiet --requirement .venv/train-without-torch.txt
  mark_done train
}

has_postgres() { command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }

apt_install() { DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1; }

# Only its programs: the tests start a server of their own, and no other is to run.
without_a_postgres_server() {
  local file=/etc/postgresql-common/createcluster.conf
  [ -e "$file" ] || { mkdir -p "${file%/*}" && echo 'create_main_cluster = false' > "$file"; }
}

# What tests of the whole need: a browser and Korean fonts, tmux, PostgreSQL, bubblewrap. Only on a CI machine, and only
# what is missing; a test whose program cannot be had is skipped.
install_system() {
  [ "${CI:-}" = true ] && is_root_with_apt || return 0
  local missing=() package
  command -v chromium >/dev/null || missing+=(chromium fonts-noto-cjk)
  command -v tmux >/dev/null || missing+=(tmux)
  command -v bwrap >/dev/null || missing+=(bubblewrap)
  has_postgres || { without_a_postgres_server; missing+=(postgresql); }
  [ ${#missing[@]} = 0 ] && return
  say "installing ${missing[*]}"
  apt-get update -qq >/dev/null 2>&1 || say "apt-get update failed; going on with what it knew before"
  apt_install "${missing[@]}" && return
  for package in "${missing[@]}"; do
    apt_install "$package" || say "could not install $package; the tests that need it will be skipped"
  done
}

make_venv
install_part base
case "$part" in
  base) ;;
  test) install_part dev; install_train; install_system ;;
  *) fail "no such part: $part (base or test)" ;;
esac
