#!/usr/bin/env bash
# The end-to-end tests on a real Kubernetes: builds the images, starts a cluster unless KUBECONFIG names one, runs tests/e2e inside of its network.
# CLUSTER is the command that starts a cluster without a registry (build | up | image | run | down); default: the one beside this repository.
set -euo pipefail
cd "$(dirname "$0")/.."
cluster=${CLUSTER:-../shared/cluster/cluster}
[ -x "$cluster" ] || { echo "no $cluster; set CLUSTER, or push the images of \`make images\` and run pytest -m e2e tests/e2e with KUBECONFIG set"; exit 2; }
started=
if ! state=$("$cluster" status 2> /dev/null); then "$cluster" up; started=yes
elif grep -q stopped <<< "$state"; then echo "a part of the cluster has stopped; restart it by: $cluster down; $cluster up"; exit 2
fi
before=
finish() { [ -z "$before" ] || rm -rf "$before"; [ -z "$started" ] || "$cluster" down; }
trap finish EXIT
services=(services/signer services/ingress services/delivery operator cli)
images() { # TAG FOLDER [SERVICE...]
    local tag=$1 folder=$2 place; shift 2
    for place; do "$cluster" image "localhost/postroom-$(basename "$place"):$tag" "$folder/$place/Dockerfile" "$folder" --layers; done
}
# What the upgrade starts from: the last release, and until there is one the chart before the last change of it.
previous=${E2E_PREVIOUS:-$(git describe --tags --abbrev=0 2> /dev/null || git log --skip=1 -1 --format=%h -- charts)}
before=$(mktemp -d)
git archive "$previous" | tar -x -C "$before"
export E2E_PREVIOUS_CHART=$before/charts/postroom
if [ -z "${E2E_KEEP_IMAGES:-}" ]; then
    images e2e . "${services[@]}"
    images e2e-previous "$before" "${services[@]:0:4}"
fi
# E2E_MARKERS="e2e" runs the heavy ones too: the operator killed at each write of a rotation, a thousand MailDomains.
"$cluster" run uv run pytest -m "${E2E_MARKERS:-e2e and not heavy}" tests/e2e tests/contract tests/integration/operator "$@"
