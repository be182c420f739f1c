#!/usr/bin/env bash
# Writes requirements/*.txt: every package with the one version that resolved together, from what .venv holds now.
# base = what `helmsman` needs; dev and train = what `make test` needs on top. Run after changing pyproject.toml's dependencies.
set -euo pipefail
cd "$(dirname "$0")/.."
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

.venv/bin/pip freeze --exclude-editable > "$scratch/installed.txt"
for part in base dev train; do
  extra="[$part]"
  [ "$part" = base ] && extra=""
  .venv/bin/pip install --quiet --dry-run --ignore-installed --constraint "$scratch/installed.txt" \
    --report "$scratch/$part.json" ".$extra"
done

.venv/bin/python - "$scratch" <<'PY'
import json, pathlib, sys

scratch, out = pathlib.Path(sys.argv[1]), pathlib.Path("requirements")
out.mkdir(exist_ok=True)
known = set()
for part in ("base", "dev", "train"):
    found = {
        f"{m['name'].lower()}=={m['version'].split('+')[0]}"
        for m in (i["metadata"] for i in json.loads((scratch / f"{part}.json").read_text())["install"])
        if m["name"] != "helmsman"
    }
    (out / f"{part}.txt").write_text("# made by scripts/lock.sh\n" + "".join(f"{line}\n" for line in sorted(found - known)))
    known |= found
PY
wc -l requirements/*.txt
