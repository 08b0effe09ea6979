#!/usr/bin/env bash
# The end-to-end tests on a real Kubernetes: builds the images, starts a cluster unless KUBECONFIG names one, runs tests/e2e inside of its network.
# CLUSTER is the command that starts a cluster without a registry (build | up | image | run | down); default: the one beside this repository.
set -euo pipefail
cd "$(dirname "$0")/.."
cluster=${CLUSTER:-../shared/cluster/cluster}
[ -x "$cluster" ] || { echo "no $cluster; set CLUSTER, or push the images of \`make images\` and run pytest -m e2e tests/e2e with KUBECONFIG set"; exit 2; }
started=
if ! "$cluster" status > /dev/null 2>&1; then "$cluster" up; started=yes; fi
finish() { [ -z "$started" ] || "$cluster" down; }
trap finish EXIT
if [ -z "${E2E_KEEP_IMAGES:-}" ]; then
    for place in services/signer services/ingress services/delivery operator cli; do
        "$cluster" image "localhost/postroom-$(basename "$place"):e2e" "$place/Dockerfile" . --layers
    done
fi
"$cluster" run uv run pytest -m e2e tests/e2e tests/contract "$@"
