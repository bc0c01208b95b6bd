# The Makefile only names commands; the logic lives in npm scripts and test/cluster.
.DEFAULT_GOAL := help
.PHONY: help demo test check api e2e cluster-up cluster-down clean

help: ## list the commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

node_modules/.installed: package.json package-lock.json
	@bash test/tools.sh node npm
	npm ci --no-audit --no-fund --loglevel=error
	@touch $@

demo: node_modules/.installed ## run the example sessions in one process: no cluster, no key
	@bash test/tools.sh bash git rg
	@npm run -s demo

test: node_modules/.installed ## static checks, unit, repository, integration and security tests (real Redis and Vault)
	@bash test/tools.sh bash git rg redis-server
	@command -v vault > /dev/null || bash test/cluster/build.sh vault
	@npm run -s test:static
	@npm run -s test:tiers -- unit repo integration security

check: node_modules/.installed ## what to run before each commit (seconds)
	@npm run -s check

api: node_modules/.installed ## controller and security tests against a real API server and etcd
	@bash test/cluster/build.sh api helm
	@npm run -s test:tiers -- api security-api

cluster-up: node_modules/.installed ## bring a real single-node Kubernetes up
	@bash test/cluster/up.sh

cluster-down: ## take it down and check that nothing is left
	@bash test/cluster/down.sh

e2e: node_modules/.installed ## install the chart on the cluster and run the end-to-end tests
	@bash test/cluster/up.sh
	@npm run -s test:tiers -- chart e2e

clean: ## remove what was built in this checkout
	rm -rf node_modules dist coverage .drover
