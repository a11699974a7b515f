# HiRes Fusion: `make demo` draws, `make test` proves. Both set up what they need.
#
#   make demo PROMPT="a red balloon over the sea" SEED=7 SCALE=4
#   COMFYUI_PATH=   ComfyUI to use (else the one whose custom_nodes holds this checkout, else PyPI's)
#   COMFYUI_PYTHON= its interpreter (else its venv, else our .venv)
#   HOST=newest     ComfyUI's newest state (or COMFYUI_PATH's) with the newest page of PyPI
#   PYTHON=         Python 3.10 or newer that our .venv is made with

ifndef PYTHON
PYTHON := $(shell for p in python3.11 python3.12 python3.13 python3.10 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done)
endif
VENV := .venv/bin
PYTEST := $(VENV)/python -m pytest -c tests/pytest.ini
PORT ?= 8188

# Only from make's command line: a shell may have a PROMPT of its own.
from_command_line = $(if $(findstring command,$(origin $(1))),$($(1)))
export HRF_PROMPT := $(call from_command_line,PROMPT)
export HRF_SEED := $(call from_command_line,SEED)
export HRF_SCALE := $(call from_command_line,SCALE)
export HRF_PORT := $(PORT)
export HRF_HOST := $(call from_command_line,HOST)
export COMFYUI_PATH COMFYUI_PYTHON

.PHONY: help demo test test-cluster unit lint host serve train bench bench-quality bench-speed \
	tournament report clean python

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -8
	@echo "targets: demo test test-cluster unit lint host serve train bench bench-quality bench-speed"
	@echo "         tournament report clean"

python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
	{ echo "error: no Python 3.10 or newer here: install one, or say where it is with PYTHON=" >&2; exit 1; }

# The pictures of the demo workflow, in out/demo/.
demo: python
	@"$(PYTHON)" -m tools.setup_env demo
	@$(VENV)/python -m tools.run_demo

# Everything: house rules, mathematics, a real ComfyUI, a real browser.
test: lint
	@$(PYTEST) tests

# Many servers on Ray: what is killed, hangs or fills the disk. A quarter of an hour.
test-cluster: lint
	@$(PYTEST) tests -m cluster

# What needs no ComfyUI.
unit: host
	@$(PYTEST) tests/unit

lint: python
	@"$(PYTHON)" -m tools.setup_env test
	@$(VENV)/ruff check .

host: python
	@"$(PYTHON)" -m tools.setup_env test

# ComfyUI with this pack, for use by hand; PORT=8188.
serve: python
	@"$(PYTHON)" -m tools.setup_env demo
	@$(VENV)/python -m tools.serve

# The demo model from nothing: scenes, VAE, latents, UNet, weights in demo/. Hours on a CPU.
MINUTES ?= 60
train: python
	@"$(PYTHON)" -m tools.setup_env demo
	$(VENV)/python -m lab.scenes.dataset --count 14000 --kinds balloon,boat,lighthouse
	$(VENV)/python -m lab.training.train_vae --minutes 12
	$(VENV)/python -m lab.training.train_unet --minutes $(MINUTES)
	$(VENV)/python -m lab.training.train_unet --export
	$(VENV)/python -m lab.training.train_refiner
	$(VENV)/python -m lab.training.train_refiner --export
	$(VENV)/python -m lab.training.fuser_pairs
	$(VENV)/python -m lab.training.train_fusers

# The figures of docs/benchmarks.md.
bench: python
	@"$(PYTHON)" -m tools.setup_env demo
	$(VENV)/python -m lab.bench.counter_accuracy
	$(VENV)/python -m lab.bench.model_figures --first 820000 --count 64 --renders 32
	$(VENV)/python -m lab.bench.repetition --seeds 16 --scale 3
	$(VENV)/python -m lab.bench.overhead
	$(VENV)/python -m lab.scenes.dataset --count 256 --seed 9 --kinds balloon,boat,lighthouse --out lab/runs/held
	$(VENV)/python -m lab.training.train_refiner --measure --shipped --count 256
	$(VENV)/python -m lab.training.fuser_pairs --count 256 --seed 22 --whole --out lab/runs/held_pairs
	$(VENV)/python -m lab.training.fuser_pairs
	$(VENV)/python -m lab.training.train_fusers --report --count-objects --network

# How good each method is, against true renders: BENCH=--quick (5 minutes on 2 cores), nothing
# (over an hour), or BENCH=--full (for a GPU). Goes on where it was interrupted.
bench-quality: python
	@"$(PYTHON)" -m tools.setup_env test
	$(VENV)/python -m pip install -q --no-deps -r lab/bench/requirements-upscaler.txt || true
	$(VENV)/python -m lab.bench.quality $(BENCH)

# The preregistered comparison of all presets (lab/bench/tournament.toml), at low priority, for so
# many minutes; goes on where it stopped. Then README.md and docs/benchmarks.md are brought up to
# date. DRAW="--replace" after the weights changed.
tournament: python
	@"$(PYTHON)" -m tools.setup_env test
	$(VENV)/python -m pip install -q --no-deps -r lab/bench/requirements-upscaler.txt || true
	$(VENV)/python -m lab.bench.tournament draw --minutes $(MINUTES) $(DRAW)
	$(VENV)/python -m lab.bench.tournament publish

# The stored results as a page, out/report.html: tables that sort, plots, pictures side by side.
report: python
	@"$(PYTHON)" -m tools.setup_env test
	$(VENV)/python -m lab.bench.report

# Seconds of every method against the device's limits and other packs. SPEED="--packs FOLDER".
SPEED ?=
bench-speed: python
	@"$(PYTHON)" -m tools.setup_env demo
	$(VENV)/python -m lab.bench.speed $(SPEED)

clean:
	rm -rf out .cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -not -path './.comfyui/*' -prune -exec rm -rf {} +
