# make demo    set up .venv and recover a mesh from pictures of it (out/demo)
# make test    set up .venv and run the whole test suite, in WORKERS processes
# make fuzz    CASES (10 000) random scenes, hostile calls and damaged files, by SEED
# make docs    build the site in out/site
# make test-levels  run the tests of the kernels at every SIMD level of this machine but the widest, which make test runs
# make test-asan  run them, and hostile calls, with the address and undefined-behaviour sanitizers
# make test-emulated  run the tests of the GPU's kernels on the host: in three orders of threads, with sanitizers (SANITIZE), and
#              without each barrier
# make test-cuda   on an NVIDIA GPU: kernels against the CPU's, the ops' tests, streams, graphs, faults; CUDA_PYTHON has a
#              torch for CUDA, OUT names a folder for results, STEPS some of the steps, GEODIFF_REHEARSE=1 does without a GPU
# make bench-cuda  times of the kernels on a GPU, beside what of other packages is installed
# make stubs   write geodiff/native/_cpu.pyi, the types of the extension, after a binding has changed
# make lint types kernels wheel clean
#
# On Linux, torch from the default index comes with gigabytes of CUDA, which this release does not use. For its CPU build,
# set PIP_EXTRA_INDEX_URL to PyTorch's index of CPU wheels ("Get started" on its site, Pip, CPU): pip prefers what is there.

PYTHON  ?= python3
WORKERS ?= 2
SEED    ?= 0
CASES   ?= 10000
DEMO_FLAGS ?=
FUZZ    ?= 1500
SANITIZE ?= address,undefined
PRELOADED = OMP_WAIT_POLICY=passive ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
  LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)"
SANITIZED = $(PRELOADED) UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH=tests/sanitized \
  GEODIFF_KERNELS=$$(ls $(CURDIR)/build/$(SANITIZE)/_cpu*.so)
EMULATED = $(PRELOADED) UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 GEODIFF_SANITIZE=$(SANITIZE)
DEMO = $(BIN)/geodiff render assets/airplane.obj --views 24 -o out/demo/views && \
       $(BIN)/geodiff fit-mesh out/demo/views -o out/demo/fit --fresh $(DEMO_FLAGS)

BIN := .venv/bin
CUDA_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq install -c constraints.txt
SOURCES := pyproject.toml geodiff/members.def $(shell find cuda -type f)

.PHONY: demo test test-levels test-asan test-emulated test-cuda bench-cuda fuzz docs lint types kernels stubs wheel clean

demo: .venv/.run
	$(DEMO)

# Without the passive policy, OpenMP threads of one worker spin while the other one waits for the core.
test: .venv/.dev
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -q -n $(WORKERS)

fuzz: .venv/.dev
	OMP_WAIT_POLICY=passive $(BIN)/python -m tests.fuzz --seed $(SEED) --count $(CASES)

docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q

test-levels: .venv/.dev
	for level in $$($(BIN)/python -c 'from geodiff.native import cpu; print(*cpu.simd_levels()[:-1])'); do \
	  echo "SIMD level $$level"; \
	  GEODIFF_SIMD=$$level OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -q -n $(WORKERS) tests/ops \
	    -k "not emulated and not gpu_family" || exit 1; \
	done

test-emulated: .venv/.dev
	for order in forward backward shuffled; do \
	  GEODIFF_ORDERS=$$order OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -q -n $(WORKERS) tests/ops tests/native -k "emulated or gpu" || exit 1; \
	done
	env $(EMULATED) GEODIFF_REHEARSE=all STEPS=smoke $(BIN)/python -m tests.device.run
	env $(EMULATED) $(BIN)/python -m pytest -q tests/ops -k "emulated or gpu"
	$(BIN)/python .ci/remove_barriers.py

# A build of its own, found through tests/sanitized, and each SIMD level that the machine has. Python's own allocations
# are no leaks of ours.
test-asan: .venv/.dev
	cmake -S cuda -B build/$(SANITIZE) -DCMAKE_BUILD_TYPE=Release -DGEODIFF_SANITIZE=$(SANITIZE) \
	  -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python -Dnanobind_DIR="$$($(BIN)/python -m nanobind --cmake_dir)" \
	  -DSKBUILD_SABI_COMPONENT=Development.SABIModule
	cmake --build build/$(SANITIZE) -j $(WORKERS)
	for level in $$($(BIN)/python -c 'from geodiff.native import cpu; print(*cpu.simd_levels())'); do \
	  env $(SANITIZED) GEODIFF_SIMD=$$level $(BIN)/python tests/fuzz_ops.py --seed $(SEED) --count $(FUZZ) || exit 1; \
	  env $(SANITIZED) GEODIFF_SIMD=$$level $(BIN)/python -m pytest -q tests/ops -m "not slow" || exit 1; done

# By .venv's Python where there is one, whose torch must be built for CUDA.
test-cuda:
	STEPS="$${STEPS:-env smoke tests repeat streams faults graph sanitize}" $(CUDA_PYTHON) -m tests.device.run

bench-cuda:
	STEPS="$${STEPS:-env bench}" $(CUDA_PYTHON) -m tests.device.run

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.dev
	$(BIN)/mypy

kernels: .venv/.dev
	$(BIN)/python .ci/compile_kernels.py

stubs: .venv/.dev
	$(BIN)/python .ci/stubs.py

wheel: .venv/.dev
	$(BIN)/python -m build

clean:
	rm -rf .venv build dist out .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# torch goes first and pinned, so that nothing pulls another build of it; the build tools with it, because the package
# is built without isolation: an edited kernel is then rebuilt in seconds.
.venv/.base: constraints.txt
	@echo "Setting up .venv (takes minutes the first time)"
	@$(PYTHON) -m venv .venv
	@$(PIP) torch scikit-build-core nanobind nanobind-backend cmake ninja
	@touch $@

.venv/.run: .venv/.base $(SOURCES)
	@$(PIP) --no-build-isolation -e .
	@touch $@

.venv/.dev: .venv/.base $(SOURCES)
	@$(PIP) --no-build-isolation -e '.[dev]'
	@touch .venv/.run $@

.venv/.docs: .venv/.dev
	@$(PIP) --no-build-isolation -e '.[docs]'
	@touch .venv/.run .venv/.dev $@
