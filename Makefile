# Every command of this project. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help guard sync check format test heavy fuzz e2e kubeconform protos lock bench images ci

CODE := protos services operator cli tests bench scripts

help:  ## list the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

sync:  ## make the environment: every distribution editable, every pin as in pyproject.toml
	uv sync

check:  ## before every commit: format, lint, types, architecture, unit and contract tests (under two minutes)
	uv run ruff format --check $(CODE)
	uv run ruff check $(CODE)
	uv run mypy services operator cli tests scripts bench
	uv run pytest tests/unit tests/contract tests/architecture

format:  ## format the code and repair what the lint can repair
	uv run ruff format $(CODE)
	uv run ruff check --fix $(CODE)

test:  ## all tests but the heavy ones and those that need a cluster
	uv run pytest

heavy:  ## minutes of load, kills and fuzzing
	uv run pytest -m heavy

e2e:  ## the whole product on a real Kubernetes, in about a quarter of an hour
	scripts/e2e.sh

kubeconform:  ## the chart against the schemas of three Kubernetes versions; needs go and helm
	go install github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0
	for version in 1.30.14 1.32.13 1.34.4; do go mod download k8s.io/kubernetes@v$$version || exit 1; done
	uv run pytest -rs tests/unit/chart

fuzz:  ## an hour of random sessions against a real ingress, then of each parser; FUZZ_SECONDS=… for longer
	POSTROOM_TEST_FUZZ_SECONDS=$$(($${FUZZ_SECONDS:-3600} / 2)) uv run pytest -s tests/integration/ingress/test_fuzz.py tests/integration/ingress/test_pipelining.py
	for target in addresses headers contents proxies sessions; do \
		uv run --with atheris python scripts/fuzz_parsers.py $$target -max_total_time=$$(($${FUZZ_SECONDS:-3600} / 5)) -max_len=4096 || exit 1; \
	done

protos:  ## generate protos/gen from the .proto files
	uv run python scripts/gen_protos.py

lock:  ## resolve every dependency anew and pin what was found
	uv run python scripts/pin_versions.py --upgrade
	uv lock
	uv sync

screenshots:  ## the pictures of the page in docs/images, by the browser tests
	SCREENSHOTS=docs/images uv run pytest tests/integration/web/test_browser.py

bench:  ## messages per second and CPU per message, next to Postfix and OpenDKIM on this machine
	uv run python bench/run.py

guard:  ## fails when Postroom has become much slower than the committed ratio
	uv run python bench/guard.py

images:  ## one container image per service, one of the operator, one of the command
	for service in services/ingress services/signer services/delivery operator cli; do docker build -f $$service/Dockerfile -t postroom-$$(basename $$service) . || exit 1; done

ci:  ## what the continuous integration runs
	.ci/run
