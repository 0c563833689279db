# What one does with espalier. `make` lists it.

.DEFAULT_GOAL := help
.PHONY: help demo demo-generate model run up down test check bench golden soak openapi clean

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
	@scripts/secrets.sh
	@if docker compose version >/dev/null 2>&1; then docker compose up --build; else docker-compose up --build; fi

down: ## Stop the containers; what they stored stays
	@if docker compose version >/dev/null 2>&1; then docker compose down; else docker-compose down; fi

test: ## All tests, on SQLite and on a Postgres of their own
	scripts/postgres.sh run cargo test --locked

check: ## Format, lints and, where cargo-deny is installed, licences
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check; \
	else echo "cargo-deny is not installed: licences and bans were not checked (cargo install cargo-deny)"; fi

bench: ## How long training and predicting take on this machine
	@scripts/bench.sh

golden: model ## Logits and gradients on the real base model, against PyTorch and PEFT
	@scripts/golden.sh

soak: ## The reliability tests at full length: kills, restarts, many clients
	ESPALIER_SOAK=1 scripts/postgres.sh run cargo test --locked

openapi: ## Write openapi.yaml from the code
	cargo run --locked --quiet -- openapi > openapi.yaml.new
	mv openapi.yaml.new openapi.yaml

clean: ## Remove what was built; models and data stay
	cargo clean
