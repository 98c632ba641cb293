# shellcheck shell=bash
# Sourced: makes .venv in the checkout and installs the package with the extras "$1".
# Installs again only when setup.cfg, pyproject.toml or the extras have changed.
install_into_venv() {
  local extras="$1" python="${PYTHON:-python3}"
  if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "error: Python 3.11 or newer is needed: '$python' is" \
      "$("$python" --version 2>&1). Set PYTHON to a newer one." >&2
    return 1
  fi
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  local stamp
  stamp="$(cat setup.cfg pyproject.toml) extras: $extras"
  if [ "$(cat ".venv/installed-$extras" 2>/dev/null)" != "$stamp" ]; then
    echo "Installing segnext_jax[$extras] into .venv ..." >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
      --editable ".[$extras]"
    printf '%s' "$stamp" >".venv/installed-$extras"
  fi
}
