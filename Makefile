# Two commands show and prove weft: `make demo` and `make test`. Both set up what they need from Debian's
# packages and want root for namespaces, TAP devices and nftables.
SHELL := /bin/bash
# Tests on namespaces wait more than they work: at least four at a time.
export RUST_TEST_THREADS ?= $(shell nproc | awk '{print $$1 < 4 ? 4 : $$1}')
ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo -E env "PATH=$$PATH")

.PHONY: help demo test bench bench-peers bench-programs bench-integrity bench-swarm lint fmt deny build deb image setup-demo setup-test setup-bench setup-peers setup-programs clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: setup-demo ## three hosts, one network across them, traffic, a host lost and found
	cargo build --release --locked
	$(ROOT) target/release/weft demo

test: setup-test ## every test: units, properties, simulation, namespaces, Docker
	$(ROOT) cargo test --workspace --locked --no-fail-fast

bench: setup-bench ## weft beside the kernel's VXLAN (plot: target/bench.svg), Docker's bridge and chitchat's gossip, then micro-benchmarks
	cargo build --release --locked
	$(ROOT) target/release/weft bench --self --plot target/bench.svg
	$(ROOT) cargo bench --locked -p weft --bench attach --bench bridge --bench scale
	cargo bench --locked -p weft-dataplane --bench checksum --bench engine --bench fdb --bench offload --bench seal
	cargo run --release --manifest-path benches/ciphers/Cargo.toml -- --bench
	cargo run --release --manifest-path benches/gossip/Cargo.toml

bench-peers: setup-bench setup-peers ## weft sealed beside WireGuard in userspace, by Debian's wireguard-go
	cargo build --release --locked
	$(ROOT) target/release/weft bench --self --contender weft-sealed,kernel-vxlan,wireguard-go

bench-programs: setup-bench setup-programs ## iperf3, redis and nginx with their own clients over weft, beside the kernel's VXLAN
	cargo build --release --locked
	$(ROOT) target/release/weft bench --self --only iperf3,redis,http

bench-integrity: setup-bench ## 10 GiB each way, both ways at once and hashed, with every combination of offloads (half an hour)
	$(ROOT) cargo bench --locked -p weft --bench integrity -- --combinations

bench-swarm: setup-bench ## weft as Docker's driver beside Swarm's overlay, on two hosts with an engine each
	cargo build --release --locked
	$(ROOT) benches/swarm/run.sh

lint: deny ## format, clippy, docs, purity of the cores, dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --workspace --no-deps --document-private-items --locked
	.ci/purity

deny: ## licences, sources and bans of everything linked
	.ci/deny

fmt: ## format the tree
	cargo fmt --all

build: ## the binary, optimised: target/release/weft
	cargo build --release --locked

deb: ## a Debian package: target/debian/weft_*.deb (wants cargo-deb)
	packaging/deb

image: build ## a container image of the agent, weft:latest, in the Docker engine that answers
	packaging/image target/release/weft weft:latest

setup-demo:
	@.ci/setup build demo

setup-test:
	@.ci/setup build test

setup-bench:
	@.ci/setup build bench

setup-peers:
	@.ci/setup peers

setup-programs:
	@.ci/setup programs

clean: ## remove what builds made
	cargo clean
