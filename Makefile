# sana-streamd: every verb of the project. Plain GNU make; sources are found by directory,
# so adding a file needs no edit here. `make help` lists the verbs.

MAKEFLAGS += --no-builtin-rules --no-print-directory

VERSION := $(shell cat VERSION)
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
SECONDS ?= 60
JOBS ?= $(shell nproc)

# ---- variants: plain, SANITIZE=1 (gcc sanitizers), FUZZ=1 (clang and libFuzzer) ---------------

ifeq ($(SANITIZE),1)
BUILD ?= build/sanitize
OPTIMISE = -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
# gcc 12 sees uninitialised reads that are not there once the sanitizers rewrite the code.
WARN = -Wall -Wextra -Werror -Wno-maybe-uninitialized
else ifeq ($(FUZZ),1)
BUILD ?= build/fuzz
CC = clang
CXX = clang++
OPTIMISE = -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all \
	-fno-omit-frame-pointer
# The warnings that count are gcc's.
WARN = -w
else
BUILD ?= build
OPTIMISE = -O3 -g
WARN = -Wall -Wextra -Werror
endif

ifeq ($(origin CC),default)
CC = gcc
endif
ifeq ($(origin CXX),default)
CXX = g++
endif
ifeq ($(origin AR),default)
AR = ar
endif

# ---- flags ------------------------------------------------------------------------------------

MODULES = openblas jansson sentencepiece nettle zlib \
	libavformat libavcodec libavutil libswscale libavdevice libturbojpeg libdrm libudev libv4l2 \
	libsystemd libconfig icu-i18n icu-uc libpng
TEST_MODULES = cmocka
DEMO_MODULES = cairo
MODULE_FLAGS := $(patsubst -I%,-isystem%,$(shell pkg-config --cflags $(MODULES) $(TEST_MODULES) \
	$(DEMO_MODULES) 2>/dev/null))
# libyuv has no pkg-config file on Debian 12.
MODULE_LIBS := $(shell pkg-config --libs $(MODULES) 2>/dev/null) -lyuv
TEST_LIBS := $(shell pkg-config --libs $(TEST_MODULES) 2>/dev/null)
DEMO_LIBS := $(shell pkg-config --libs $(DEMO_MODULES) 2>/dev/null)

# -ffp-contract=off: a*b+c rounds twice everywhere, so that results do not depend on the compiler.
COMMON = $(WARN) $(OPTIMISE) -fopenmp -fno-math-errno -fno-trapping-math -ffp-contract=off \
	-I. $(MODULE_FLAGS) -D_GNU_SOURCE -DSANA_VERSION=\"$(VERSION)\" -MMD -MP
C_FLAGS = -std=c11 $(COMMON) $(CFLAGS)
CXX_FLAGS = -std=c++17 $(COMMON) $(CXXFLAGS)
AS_FLAGS = -I. -Wa,--noexecstack -MMD -MP
# Extra flags for the CPU kernels alone, for instance CPU_FLAGS=-march=native.
CPU_FLAGS ?=
LIBS = $(MODULE_LIBS) -lpthread -lm -ldl

# ---- CUDA: device code, where the CUDA Toolkit 13 or newer is there; CUDA=0 leaves it out --------

NVCC ?= $(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc))
CUDA ?= $(if $(NVCC),$(shell $(NVCC) --version | \
	awk '/release/ { sub(/.*release /, ""); print ($$1 + 0 >= 13) }'),0)
# Chip-specific code for compute capability 9.0; one image, and PTX, for the family of 12.x.
NVCC_FLAGS = -std=c++17 -O3 -I. --expt-relaxed-constexpr -Xptxas -warn-spills \
	-gencode arch=compute_90a,code=sm_90a \
	-gencode arch=compute_120f,code=[sm_120f,compute_120f] -Xfatbin -compress-all
# The same for every variant of the host code.
FATBINS = $(patsubst %/sanitize,%,$(patsubst %/fuzz,%,$(BUILD)))/cuda
ifeq ($(CUDA),1)
CUDA_SOURCES = $(wildcard kernels/cuda/*.c)
CUDA_IMAGES = $(patsubst kernels/cuda/%.cu,$(BUILD)/obj/kernels/cuda/%.image.o, \
	$(wildcard kernels/cuda/*.cu))
CUDA_INCLUDE = -isystem $(dir $(NVCC))../include
else
CUDA_SOURCES = $(wildcard kernels/cuda/absent/*.c)
endif

# ---- sources ----------------------------------------------------------------------------------

OBJ = $(BUILD)/obj
objects = $(patsubst %,$(OBJ)/%.o,$(1))

LIB = $(BUILD)/libsana.a
LIB_OBJECTS = $(call objects,$(wildcard base/*.c kernels/*.c kernels/cpu/*.c engine/*.c \
	engine/checkpoint/*.c engine/*.cpp engine/*.S media/*.c) $(CUDA_SOURCES)) $(CUDA_IMAGES)
# The rooms of the daemon, for the daemon itself, for sana-ctl and for tests.
DAEMON_LIB = $(BUILD)/libsana-daemon.a
DAEMON_OBJECTS = $(call objects,$(filter-out daemon/main.c, \
	$(wildcard daemon/*.c dbus/*.c conf/*.c)))
DAEMON = $(if $(wildcard daemon/main.c),$(BUILD)/bin/sana-streamd)
TOOL_OBJECTS = $(call objects,$(wildcard tools/common/*.c))
TOOLS = $(patsubst tools/%.c,$(BUILD)/bin/%,$(wildcard tools/sana-*.c))

# What scripts/demo needs beside the tools; not installed.
DEMO_HELPER = $(BUILD)/demo-helper

# tests/ROOM/NAME.c becomes $(BUILD)/tests/ROOM-NAME
programs = $(patsubst tests/$(1)/%.c,$(BUILD)/tests/$(1)-%,$(wildcard tests/$(1)/*.c))
# Of sana-bench: what checks ops, for the tests of the CUDA back end too, and the estimate, for its own.
CHECK_OBJECTS = $(call objects,tools/bench/cuda_test.c tools/bench/estimate.c \
	$(wildcard tools/bench/check_*.c))
TEST_OBJECTS = $(call objects,$(wildcard tests/common/*.c)) $(CHECK_OBJECTS)
GOLDEN_OBJECTS = $(call objects,$(wildcard tests/golden/*.c))
UNIT = $(call programs,unit)
OPS = $(call programs,ops)
CUDA_TESTS = $(call programs,cuda)
LONG = $(call programs,long)
# What scripts make their inputs with; no tests by themselves.
HELPERS = $(call programs,helpers)
GOLDEN = $(if $(wildcard tests/golden/golden.c),$(BUILD)/tests/golden)
FUZZERS = $(patsubst tests/fuzz/%.c,$(BUILD)/tests/%,$(wildcard tests/fuzz/fuzz-*.c))
# libFuzzer brings its own main; elsewhere replay.c feeds the corpus files one by one.
FUZZ_MAIN = $(if $(FUZZ),,$(OBJ)/tests/fuzz/replay.c.o)

# What tests/run is given: programs, golden manifests and scripts.
MANIFESTS = $(if $(GOLDEN),$(wildcard tests/golden/*.json))
SCRIPTS = $(wildcard tests/scripts/*.sh)
LARGE_SCRIPTS = $(wildcard tests/large/*.sh)

# Groups run under the sanitizers, and single items left out there (unit-x, dit-a.json, x.sh).
SANITIZE_TESTS ?= unit ops golden scripts fuzz
SANITIZE_SKIP ?= arrows.sh install.sh units.sh unit-pipeline_cost \
	unit-pipeline docs.sh sass.sh
SANITIZE_BUILD = $(BUILD)/sanitize
sanitized = $(if $(filter $(1),$(SANITIZE_TESTS)),$(2))
SANITIZE_ITEMS = $(filter-out $(addprefix %/,$(SANITIZE_SKIP)), \
	$(patsubst $(BUILD)/%,$(SANITIZE_BUILD)/%, \
	$(call sanitized,unit,$(UNIT)) $(call sanitized,ops,$(OPS)) \
	$(call sanitized,fuzz,$(FUZZERS)) $(call sanitized,golden,$(MANIFESTS)) \
	$(call sanitized,scripts,$(SCRIPTS))))

# ---- build ------------------------------------------------------------------------------------

.DEFAULT_GOAL := all
.PHONY: all build tests short-tests deps check check-sanitize check-large vm-check bench soak \
	fuzz fuzzers demo install install-system deb lint clean help FORCE
.DELETE_ON_ERROR:

Q = $(if $(V),,@)
# Sub-makes use every core unless the caller has chosen a number.
PARALLEL = $(if $(findstring -j,$(MAKEFLAGS)),,-j$(JOBS))
unsupported = @echo "make $@: unsupported in this version: $(1)" >&2; exit 2

all: deps ## build the library and the tools (make alone does this)
	@$(MAKE) $(PARALLEL) build

build: $(LIB) $(DAEMON_LIB) $(TOOLS) $(DAEMON)

tests: short-tests $(LONG) $(DEMO_HELPER) ## build every test program

short-tests: $(UNIT) $(OPS) $(CUDA_TESTS) $(GOLDEN) $(FUZZERS) $(HELPERS)

# Objects depend on the flags, the archive on the list of its members: both files are
# rewritten only when their text changes.
$(BUILD)/flags: TEXT = $(CC) $(CXX) $(C_FLAGS) $(CPU_FLAGS) $(CXXFLAGS) $(LDFLAGS)
$(BUILD)/members: TEXT = $(LIB_OBJECTS) $(DAEMON_OBJECTS)
$(BUILD)/flags $(BUILD)/members: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '$(TEXT)' | cmp -s - $@ || printf '%s\n' '$(TEXT)' >$@

$(OBJ)/kernels/cpu/%.c.o: C_FLAGS += $(CPU_FLAGS)
$(OBJ)/daemon/main.c.o: C_FLAGS += -DSANA_SYSCONFDIR=\"$(SYSCONFDIR)\"
$(OBJ)/kernels/cuda/%.c.o: C_FLAGS += $(CUDA_INCLUDE)

$(FATBINS)/%.fatbin: kernels/cuda/%.cu Makefile
	@mkdir -p $(@D)
	@echo "  NVCC  $<"
	$(Q)$(NVCC) $(NVCC_FLAGS) -fatbin -MD -MF $@.d $< -o $@

# A symbol at the first byte of each image: kernels/cuda/driver.c.
$(OBJ)/kernels/cuda/%.image.o: $(FATBINS)/%.fatbin
	@mkdir -p $(@D)
	$(Q)printf '.section .rodata\n.balign 64\n.globl cuda_image_%s\ncuda_image_%s:\n.incbin "%s"\n' \
		$* $* $< | $(CC) -Wa,--noexecstack -x assembler -c - -o $@

$(OBJ)/%.c.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(C_FLAGS) -c $< -o $@

$(OBJ)/%.cpp.o: %.cpp $(BUILD)/flags
	@mkdir -p $(@D)
	@echo "  CXX   $<"
	$(Q)$(CXX) $(CXX_FLAGS) -c $< -o $@

# .S files embed JSON by .incbin, which the compiler's dependency files do not see.
$(OBJ)/%.S.o: %.S $(wildcard engine/shapes/*.json engine/shapes/*/*.json) $(BUILD)/flags
	@mkdir -p $(@D)
	@echo "  AS    $<"
	$(Q)$(CC) $(AS_FLAGS) -c $< -o $@

$(LIB): $(LIB_OBJECTS) $(BUILD)/members
	@echo "  AR    $@"
	@rm -f $@
	$(Q)$(AR) rcs $@ $(LIB_OBJECTS)

$(DAEMON_LIB): $(DAEMON_OBJECTS) $(BUILD)/members
	@echo "  AR    $@"
	@rm -f $@
	$(Q)$(AR) rcs $@ $(DAEMON_OBJECTS)

# The C++ driver links, because of the sentencepiece shim. --as-needed: programs without video files do
# not load libav.
LINK = $(CXX) $(OPTIMISE) -fopenmp -Wl,--as-needed $(LDFLAGS)

define link
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	$(Q)$(LINK) -o $@ $(filter %.o,$^) $(DAEMON_LIB) $(LIB) $(1) $(LIBS)
endef

$(TOOLS): $(BUILD)/bin/%: $(OBJ)/tools/%.c.o $(TOOL_OBJECTS) $(DAEMON_LIB) $(LIB)
	$(call link)

$(DAEMON): $(OBJ)/daemon/main.c.o $(TOOL_OBJECTS) $(DAEMON_LIB) $(LIB)
	$(call link)

# tools/NAME/*.c belongs to sana-NAME alone.
$(foreach tool,$(TOOLS),$(eval $(tool): \
	$(call objects,$(wildcard tools/$(patsubst sana-%,%,$(notdir $(tool)))/*.c))))

$(UNIT) $(OPS) $(CUDA_TESTS) $(LONG) $(HELPERS): $(TEST_OBJECTS) $(DAEMON_LIB) $(LIB)
$(UNIT): $(BUILD)/tests/unit-%: $(OBJ)/tests/unit/%.c.o
	$(call link,$(TEST_LIBS))
$(CUDA_TESTS): $(BUILD)/tests/cuda-%: $(OBJ)/tests/cuda/%.c.o
	$(call link,$(TEST_LIBS))
$(OPS): $(BUILD)/tests/ops-%: $(OBJ)/tests/ops/%.c.o
	$(call link,$(TEST_LIBS))
$(LONG): $(BUILD)/tests/long-%: $(OBJ)/tests/long/%.c.o
	$(call link,$(TEST_LIBS))
$(HELPERS): $(BUILD)/tests/helpers-%: $(OBJ)/tests/helpers/%.c.o
	$(call link,$(TEST_LIBS))

$(DEMO_HELPER): $(call objects,$(wildcard tools/demo/*.c)) $(DAEMON_LIB) $(LIB)
	$(call link,$(DEMO_LIBS))

$(BUILD)/tests/golden: $(GOLDEN_OBJECTS) $(TEST_OBJECTS) $(DAEMON_LIB) $(LIB)
	$(call link,$(TEST_LIBS))

$(FUZZERS): private OPTIMISE += $(if $(FUZZ),-fsanitize=fuzzer)
$(FUZZERS): $(BUILD)/tests/%: $(OBJ)/tests/fuzz/%.c.o $(FUZZ_MAIN) $(TEST_OBJECTS) \
	$(DAEMON_LIB) $(LIB)
	$(call link,$(TEST_LIBS))

.SECONDARY:
-include $(shell find $(OBJ) $(FATBINS) -name '*.d' 2>/dev/null)

# ---- verbs ------------------------------------------------------------------------------------

deps: ## check for compilers and libraries; install what is missing (root or sudo)
	@scripts/deps

check: deps ## build and run every test that takes minutes, sanitizers included
	@$(MAKE) $(PARALLEL) build tests
	@$(MAKE) $(PARALLEL) SANITIZE=1 BUILD=$(SANITIZE_BUILD) build short-tests
	@tests/run BUILD=$(BUILD) $(UNIT) $(OPS) $(CUDA_TESTS) $(FUZZERS) $(MANIFESTS) $(SCRIPTS) \
		SANITIZE=1 BUILD=$(SANITIZE_BUILD) $(SANITIZE_ITEMS)

check-sanitize: deps ## the sanitizers' part of check (SANITIZE_TESTS, SANITIZE_SKIP choose)
	@$(MAKE) $(PARALLEL) SANITIZE=1 BUILD=$(SANITIZE_BUILD) build short-tests
	@tests/run SANITIZE=1 BUILD=$(SANITIZE_BUILD) $(SANITIZE_ITEMS)

check-large: deps ## tests that need many minutes or much memory
	@$(MAKE) $(PARALLEL) build tests
	@TEST_TIMEOUT=0 tests/run BUILD=$(BUILD) $(LONG) $(LARGE_SCRIPTS)

ifdef MINUTES
soak: export SANA_SOAK_SECONDS = $(shell expr $(MINUTES) '*' 60)
SOAKED = $(BUILD)/tests/long-daemon_soak
else
SOAKED = $(LONG)
endif
soak: deps ## the long-* tests at full length; MINUTES=30: the daemon's, for so long
	@$(MAKE) $(PARALLEL) build $(SOAKED)
	@TEST_TIMEOUT=0 SANA_SOAK=1 tests/run BUILD=$(BUILD) $(SOAKED)

VM_HELPERS = $(addprefix $(BUILD)/tests/helpers-,small_model frames v4l2_read kms_writeback devices)
vm-check: ## install the package in a virtual machine and test it on real kernel drivers
	@scripts/deps vm
	@$(MAKE) deb
	@$(MAKE) $(PARALLEL) $(VM_HELPERS)
	@VM_CACHE=$(abspath $(BUILD)/vm) tests/vm/build-image
	@VM_CACHE=$(abspath $(BUILD)/vm) BUILD=$(BUILD) tests/vm/run \
		$(BUILD)/sana-streamd_$(VERSION)_$$(dpkg --print-architecture).deb

ifneq ($(wildcard tools/sana-bench.c),)
bench: all ## time the engine on the demo model
	$(BUILD)/bin/sana-bench --model models/demo --chunks 10
else
bench:
	$(call unsupported,there is no sana-bench yet)
endif

demo: all ## edit a clip by prompts, make a contact sheet (SOURCE=clip.mp4, SOURCE=/dev/video0)
	@$(MAKE) $(PARALLEL) $(DEMO_HELPER)
	@BUILD='$(BUILD)' SOURCE='$(SOURCE)' scripts/demo

fuzz: ## run each fuzz target with clang for SECONDS=60
	@scripts/deps fuzz
	@$(MAKE) $(PARALLEL) FUZZ=1 BUILD=$(BUILD)/fuzz fuzzers
	@scripts/fuzz $(BUILD)/fuzz $(SECONDS) $(notdir $(FUZZERS))

fuzzers: $(FUZZERS)

lint: ## formatting, arrows, cppcheck, shellcheck, file length
	@scripts/lint

SHARE = $(DESTDIR)$(PREFIX)/share
DEMO = $(SHARE)/sana-streamd/models/demo
# Where systemd, udev, the bus and polkit look: they say so, whatever PREFIX is.
# $(call ask,package,variable,where it is if nobody says)
ask = $(or $(shell pkg-config --variable=$(2) $(1) 2>/dev/null),$(3))
UNIT_DIR ?= $(call ask,systemd,systemdsystemunitdir,/lib/systemd/system)
SYSUSERS_DIR ?= $(call ask,systemd,sysusersdir,/usr/lib/sysusers.d)
MODULES_LOAD_DIR ?= $(call ask,systemd,modulesloaddir,/usr/lib/modules-load.d)
MODPROBE_DIR ?= $(dir $(MODULES_LOAD_DIR))modprobe.d
UDEV_DIR ?= $(call ask,udev,udevdir,/lib/udev)
DBUS_DIR ?= $(call ask,dbus-1,datadir,/usr/share)/dbus-1
POLKIT_DIR ?= $(dir $(call ask,polkit-gobject-1,actiondir,/usr/share/polkit-1/actions))
SYSTEMD_VERSION := $(firstword $(shell pkg-config --modversion systemd 2>/dev/null) 0)
# $(call put,mode,files,directory): nothing where there are no files
put = $(if $(strip $(2)),install -d $(3) && install -m $(1) $(2) $(3))
# Commands inside of units and activation files: the template's places filled in.
# $(call unit,file.in,target,arguments,sub-directory,words,alias)
unit = sed -e 's,@sbindir@,$(PREFIX)/sbin,g' -e 's,@arguments@,$(3),' -e 's,@runtime@,$(subst /,-,$(4)),' \
	-e 's,@state@,$(4),' -e 's,@of_instance@,$(5),' $(if $(6),-e 's/@alias@/$(6)/',-e '/@alias@/d') $(1) >$(2) && chmod 644 $(2)
UNITS = $(DESTDIR)$(UNIT_DIR)

install: all ## install to $(DESTDIR)$(PREFIX)
	$(call put,755,$(TOOLS),$(DESTDIR)$(PREFIX)/bin)
	$(call put,755,$(DAEMON),$(DESTDIR)$(PREFIX)/sbin)
	$(call put,644,$(wildcard docs/*.1),$(SHARE)/man/man1)
	$(call put,644,$(wildcard docs/*.5),$(SHARE)/man/man5)
	$(call put,644,$(wildcard docs/*.7),$(SHARE)/man/man7)
	$(call put,644,$(wildcard docs/*.8),$(SHARE)/man/man8)
	$(call put,644,$(wildcard tools/completion/*),$(SHARE)/bash-completion/completions)
	$(call put,644,README.md LICENSE $(wildcard docs/*.md),$(SHARE)/doc/sana-streamd)
	$(call put,644,$(wildcard docs/model/*.md),$(SHARE)/doc/sana-streamd/model)
	cd models/demo && find . -path ./expected -prune -o -type f -exec install -D -m 644 {} $(abspath $(DEMO))/{} \;
	@$(MAKE) install-system

# What the daemon needs around it; tests/scripts/units.sh looks at it without the rest.
install-system:
	install -d $(UNITS) $(DESTDIR)$(SYSUSERS_DIR) $(DESTDIR)$(MODULES_LOAD_DIR) \
		$(DESTDIR)$(MODPROBE_DIR) $(DESTDIR)$(UDEV_DIR)/rules.d $(SHARE)/doc/sana-streamd/examples
	$(call unit,systemd/sana-streamd.service.in,$(UNITS)/sana-streamd.service,,,,dbus-org.sana.Stream1.service)
	$(call unit,systemd/sana-streamd.service.in,$(UNITS)/sana-streamd@.service, --instance=%i,/%i, (%i))
	$(if $(shell [ $(SYSTEMD_VERSION) -lt 254 ] || echo 1),$(foreach u,sana-streamd sana-streamd@, \
		install -D -m 644 systemd/backoff.conf $(UNITS)/$(u).service.d/backoff.conf;))
	install -m 644 systemd/sana-streamd.sysusers $(DESTDIR)$(SYSUSERS_DIR)/sana-streamd.conf
	install -m 644 systemd/sana-streamd.modules-load $(DESTDIR)$(MODULES_LOAD_DIR)/sana-streamd.conf
	install -m 644 systemd/sana-streamd.modprobe $(DESTDIR)$(MODPROBE_DIR)/sana-streamd.conf
	install -m 644 systemd/70-sana-streamd.rules $(DESTDIR)$(UDEV_DIR)/rules.d
	install -m 644 systemd/cuda.conf $(SHARE)/doc/sana-streamd/examples
	$(call put,644,$(wildcard conf/*.conf),$(DESTDIR)$(SYSCONFDIR)/sana-streamd)
	$(call put,644,$(wildcard dbus/*.xml),$(DESTDIR)$(DBUS_DIR)/interfaces)
	$(call put,644,$(wildcard dbus/*.conf),$(DESTDIR)$(DBUS_DIR)/system.d)
	$(call put,644,$(wildcard dbus/*.service),$(DESTDIR)$(DBUS_DIR)/system-services)
	$(call put,644,$(wildcard dbus/*.policy),$(DESTDIR)$(POLKIT_DIR)actions)
	$(call put,644,$(wildcard dbus/*.rules),$(DESTDIR)$(POLKIT_DIR)rules.d)

deb: ## a Debian package, $(BUILD)/sana-streamd_VERSION_ARCH.deb
	@scripts/deps deb
	@$(MAKE) all
	@DEB_RULES_REQUIRES_ROOT=no debian/rules binary BUILD=$(BUILD)

clean: ## remove the build directory
	rm -rf $(BUILD)

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile
