# Every target in one line: make help
GO      ?= go
BIN      = bin
PROGRAMS = seeder meshd mesh-install meshctl
FUZZTIME ?= 20s
SEEDS    ?= 200
KEEP     ?=
RUNS     ?= 3
SIZE     ?= 64
ONLY     ?=
ROLLOUTS ?= 4
# Pinned here and nowhere else, so that it does not become a dependency of the module.
GOLANGCI = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.DEFAULT_GOAL := help
.PHONY: help setup build test race fuzz demo examples site-test bench fleet-bench crash-test install-test vm-test alerts-test sim rollout-sim lint fmt clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install the system packages that the tests want (root on Debian), or say which are missing
	@scripts/setup

build: ## build the four programs into bin/
	@mkdir -p $(BIN)
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/ $(PROGRAMS:%=./cmd/%)

test: setup ## set-up, vet, every test; the last lines say what was skipped and why
	$(GO) vet ./...
	$(GO) run ./scripts/testsum -vet=off -timeout 20m ./...

race: ## every test under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) run ./scripts/testsum -race -short -timeout 40m ./...

fuzz: ## each fuzz target for FUZZTIME (default 20s)
	@scripts/fuzz $(FUZZTIME)

demo: build ## a real bundle over a thin WAN into a site of 8 nodes, the uplink killed half-way; KEEP=1 leaves it running
	KEEP=$(KEEP) $(GO) run ./examples/demo

examples: build ## the other examples: two sites behind thin links, a USB stick into a site without WAN, a rollout taken back
	KEEP=$(KEEP) $(GO) run ./examples/two-sites
	KEEP=$(KEEP) $(GO) run ./examples/usb-stick
	KEEP=$(KEEP) $(GO) run ./examples/rollout

site-test: setup ## a whole site in network namespaces, whole and broken, with the figures as published (root, 15 minutes)
	PATCHMESH_FULL=1 $(GO) test -count=1 -v -timeout 40m ./internal/sitetest

# A full run is the published one; anything shorter is for the person who asked.
ifeq ($(SIZE)$(filter 1 2,$(RUNS)),64)
BENCH_OUT = -out bench/results.json -readme README.md
else
BENCH_OUT = -out $(BIN)/bench.json
endif

# In memory where that can be: one disk cannot stand for those of nine machines. BENCH_DIR=/var/tmp to see what it does.
BENCH_DIR ?= $(firstword $(wildcard /dev/shm) /tmp)

bench: build ## against the bounds and against rsync, curl, BitTorrent, UFTP, on one bed (root, half an hour); RUNS=1 SIZE=16 to try, ONLY=ours|rivals|lan|polite
	@scripts/setup bench
	TMPDIR=$(BENCH_DIR) $(GO) run ./internal/bench -bin $(BIN) -runs $(RUNS) -size $(SIZE) -only '$(ONLY)' $(BENCH_OUT)

fleet-bench: ## seeder and meshctl with 10,000 nodes in 1,200 sites, a day of reports, a rollout: memory, drain, every screen (16384 descriptors)
	SEEDER_BENCH_NODES=10000 $(GO) test ./cmd/seeder -run '^$$' -bench Fleet -benchtime 1x -timeout 60m

# CUTS is for each format. In memory: a cut takes two flushes of a whole machine.
CUTS ?= 500
crash-test: build ## kill store, snapshots and installer at every file system call, then real transactions at CUTS instants (root, strace; an hour)
	PATCHMESH_LONG=1 $(GO) run ./scripts/testsum -run 'Crash|AtEveryCall|PowerLoss' -skip CrashPackagesAtRandom -timeout 40m ./...
	PATCHMESH_CUTS=$(CUTS) $(GO) test -count=1 -v -run CrashPackagesAtRandom -timeout 4h ./cmd/mesh-install

install-test: setup ## Debian's own updates collected, closed, staged, installed offline into a real root and taken back to the byte (root, mirrors)
	@scripts/setup vm
	PATCHMESH_REAL=1 $(GO) test -count=1 -v -timeout 20m ./internal/realtest
	@mkdir -p $(BIN) && mmdebstrap --quiet --variant=minbase bookworm $(BIN)/root.tar
	PATCHMESH_ROOT_TAR=$(CURDIR)/$(BIN)/root.tar $(GO) test -count=1 -v -run TestRealRoot ./install/snapshot

vm-test: build ## in an emulated machine: LVM thin, Timeshift, live systemd, reboot, loss of power (root, qemu, quarter of an hour)
	@scripts/setup vm
	PATCHMESH_VM=1 $(GO) test -count=1 -v -timeout 60m ./internal/vm

# Out of Debian's package, which is not installed: it would start a server.
alerts-test: ## the alerts fire, and do not, by Prometheus's own promtool (Debian's package lists)
	@mkdir -p $(BIN)/prometheus
	@cd $(BIN)/prometheus && { test -x usr/bin/promtool || { apt-get -qq download prometheus && dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool; }; }
	PATH=$(CURDIR)/$(BIN)/prometheus/usr/bin:$$PATH $(GO) test -count=1 -v -run TestAlertsFire ./seeder

sim: ## the site simulation in virtual time, SEEDS runs (default 200)
	PATCHMESH_SEEDS=$(SEEDS) $(GO) run ./scripts/testsum -run 'Sim' -timeout 40m ./...

rollout-sim: ## rollouts over 10,000 nodes in 1,200 sites in virtual time, ROLLOUTS fleets (default 4)
	PATCHMESH_LONG=1 PATCHMESH_SEEDS=$(ROLLOUTS) $(GO) test -count=1 -run RolloutInVirtualTime -timeout 60m -v ./seeder/rollout

lint: ## golangci-lint as pinned above (optional: the first run builds it)
	$(GO) run $(GOLANGCI) run ./...

fmt: ## gofmt -s
	gofmt -s -w $$(git ls-files '*.go')

clean: ## remove what was built
	rm -rf $(BIN)
