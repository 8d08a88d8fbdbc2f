# SPDX-License-Identifier: Apache-2.0
# Everything from a bare Debian 12 or 13 machine; `make help` lists what there is.
.POSIX:
.PHONY: help setup setup-tests campaign test lint docs clean

SECONDS = 60
JOBS = 2
TARGET = kvm-nvhe
OUT = out/campaign
FAST =
BIN = .venv/bin
# Options of `shadowfuzz setup` and of `shadowfuzz fuzz`: parts that take minutes to build and save time later are for
# FAST=1, so that the first campaign begins at once.
FAST_ = --pure
FAST_1 = --fast-qemu
FUZZ_1 = --fast-qemu

help: ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## /  make \1	/p' Makefile | expand -t 18

setup: ## Debian packages, Python environment, kernels and guest image of every target, compiled checker (FAST=)
	@tools/setup.sh --all-targets $(FUZZ_$(FAST))

campaign: ## set up what is missing, then fuzz (SECONDS=60 JOBS=2 TARGET=kvm-nvhe OUT=out/campaign FAST=)
	@tools/setup.sh --target $(TARGET) $(FAST_$(FAST))
	@# Status 1 says that something unexplained was found: for a campaign that is success.
	@$(BIN)/shadowfuzz fuzz $(FUZZ_$(FAST)) --seconds $(SECONDS) --jobs $(JOBS) --target $(TARGET) --out $(OUT) \
		|| [ $$? -eq 1 ]

setup-tests:
	@tools/setup.sh --for-tests --all-targets --pure

test: lint ## lint, then every test, those in real VMs included
	$(BIN)/pytest --numprocesses auto tests/project tests/unit
	@# One at a time: each has a QEMU, too, and some wait for an answer.
	$(BIN)/pytest tests/vm

lint: setup-tests ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: ## the documents as a site in out/site, every link checked (installs MkDocs into .venv)
	@tools/setup.sh --target $(TARGET) --pure
	@# Only the packages of the extra: to install the project again would replace its launcher (tools/launcher.py).
	$(BIN)/python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; print(*project["optional-dependencies"]["docs"], sep="\n")' >.venv/docs.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input -r .venv/docs.txt
	@# Not --quiet: MkDocs 1.6 counts no warnings then, and --strict lets them pass.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo out/site/index.html

clean: ## remove the Python environment, findings and tools' caches of this checkout (not ~/.cache/shadowfuzz)
	rm -rf .venv out .pytest_cache .mypy_cache .ruff_cache .hypothesis
