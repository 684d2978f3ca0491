# What a person types here; `make` alone lists it. DEMO="--rate 300" passes options on to `gapless demo`.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup build demo naive test prove lint bench-switch bench-proxy

TARGET := $(or $(CARGO_TARGET_DIR),target)
GAPLESS := $(TARGET)/debug/gapless
DEMO ?=

help: ## List what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## Install what is missing on this machine (Debian packages; needs root)
	@packaging/setup $(MAKECMDGOALS)

build: setup
	@cargo build --locked --package gapless --bin gapless

demo: build ## Show the product's main job on real tools, under load, with a receipt at the end
	@$(GAPLESS) demo $(DEMO)

naive: build ## The same, beside what plain create-before-destroy loses
	@$(GAPLESS) demo --naive $(DEMO)

lint: setup ## Format, clippy
	@cargo fmt --all --check
	@cargo clippy --locked --workspace --all-targets --quiet -- --deny warnings

test: lint ## Pass all tests
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo test --locked --workspace --doc --quiet && cargo nextest run --locked --workspace --no-fail-fast; \
	else \
		cargo test --locked --workspace --exclude gapless --no-fail-fast && \
		cargo test --locked --package gapless --bins && \
		cargo test --locked --package gapless --test system -- --test-threads=1; \
	fi

bench-switch: setup ## Measure a switch of four Apache nodes beside one cold start, under load
	@cargo bench --locked --profile dev --package gapless --bench switch

bench-proxy: setup ## Measure the proxy beside HAProxy, nginx, Caddy and Apache, under load by wrk and h2load
	@cargo xtask bench-proxy

prove: setup ## Prove the engine: every scenario, simulated worlds, all states, deliberate faults, chaos on real nodes
	@cargo xtask prove
