# Common tasks. `make` lists them.

.DEFAULT_GOAL := help
.PHONY: help demo demo-generate model run up down test dashboard check lint-unsafe bench golden soak chaos dist docs openapi expected clients telemetry clean

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

demo: ## The main job, end to end: fetch the model, build, train, predict
	@scripts/demo.sh

demo-generate: ## The same for text: a small decoder learns to answer, and answers
	@scripts/demo-generate.sh

model: ## Put the default base model into models/all-MiniLM-L6-v2
	@scripts/model.sh

run: model ## Serve on 127.0.0.1:8080, on SQLite in ./data
	cargo run --locked -- serve

up: ## Serve in containers, with Postgres
	@scripts/compose-up.sh

down: ## Stop the containers; what they stored stays
	@if docker compose version >/dev/null 2>&1; then docker compose down; else docker-compose down; fi

test: ## All tests, on SQLite and on a Postgres of their own; five minutes of faults; the dashboard in a browser; the Helm chart; OpenAI's client
	scripts/postgres.sh run cargo test --locked --workspace
	scripts/dashboard.sh
	scripts/helm.sh
	scripts/clients.sh --if-available openai_python

dashboard: ## The dashboard in a browser, on a server of its own
	scripts/dashboard.sh

clients: ## Eleven clients of OpenAI's API, as they are published, against a server
	scripts/clients.sh

telemetry: ## Metrics, alert rules, dashboard and traces, checked with Prometheus, Grafana's types and a collector
	scripts/telemetry.sh

check: ## Format, lints, documentation, licences, unused dependencies, spelling
	cargo fmt --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --locked --workspace --no-deps --document-private-items --quiet
	@typos=$$(scripts/check-tools.sh) && set -x && cargo deny --log-level error check bans licenses sources && cargo machete --with-metadata && "$$typos"

lint-unsafe: ## The unsafe code of the CPU backend under Miri (installs a nightly toolchain)
	scripts/miri.sh

bench: ## The main job over HTTP, then comparisons with peers (BENCHES=training,decode for some); results in target/bench
	@scripts/bench.sh
	@python3 benches/run_all.py $(if $(BENCHES),--only $(BENCHES))

golden: model ## Logits and gradients on the real base model, against PyTorch and PEFT
	@scripts/golden.sh

soak: ## The reliability tests at full length: kills, restarts, many clients
	ESPALIER_SOAK=1 scripts/postgres.sh run cargo test --locked --workspace

chaos: ## Half an hour of faults at random: hosts, links, PostgreSQL and S3 (CHAOS_SEED repeats a run; as root each host is a namespace)
	ESPALIER_CHAOS_SECONDS=1800 ESPALIER_CHAOS_SEED=$${CHAOS_SEED:-$$(date +%s)} \
		scripts/postgres.sh run cargo test --locked -p espalier --test chaos -- --nocapture

dist: ## A wheel and a tarball in dist/, each tried in a clean environment
	scripts/dist.sh

docs: ## Run every command of README.md and docs/ against a server
	scripts/docs.sh

openapi: ## Write openapi.yaml and docs/settings.md from the code
	cargo run --locked --quiet -- openapi > openapi.yaml.new
	mv openapi.yaml.new openapi.yaml
	python3 scripts/settings_doc.py "$${CARGO_TARGET_DIR:-target}/debug/espalier" > settings.md.new
	mv settings.md.new docs/settings.md

expected: ## Write what happens to the files of users, and the output in docs/datasets.md, from runs
	ESPALIER_UPDATE_EXPECTED=1 cargo test --locked --workspace --test engine documented_codes
	ESPALIER_UPDATE_EXPECTED=1 cargo test --locked --workspace --test service user_files

clean: ## Remove what was built; models and data stay
	cargo clean
