#!/usr/bin/env bash
# Disassembles every kernel of the embedded images: the instructions that tests/cuda/instructions.txt names,
# no local memory (a kernel that keeps its values in memory is not the kernel that was meant), at most 99 KiB
# of shared memory for the sm_120 family, no emulated multicast, and every kernel of kernel_list.h in both
# images. Needs no GPU. Without nvcc it is skipped; with nvcc and no disassembler it fails.
set -u
cd "$(dirname "$0")/../.." || exit 1

build=${BUILD:-build}
images=${build%/sanitize}/cuda
table=tests/cuda/instructions.txt
shared_most=101376 # 99 KiB: compute capability 12.x, one block
# FP64 sine of the noise: its slow path for huge angles keeps a table of digits, and is never taken.
may_use_memory=' noise '
failures=0 looked=0

fail() {
	echo "FAIL  $1"
	failures=$((failures + 1))
}

if ! ls "$images"/*.fatbin >/dev/null 2>&1; then
	if command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ]; then
		echo "there is nvcc, but no image in $images: run make first"
		exit 1
	fi
	echo "built without the CUDA Toolkit: no device code to look at"
	exit 77
fi

# The toolkit's own, or the Python packages of the same name, kept beside the build.
tools=$images/tools
PATH=$PATH:/usr/local/cuda/bin:$PWD/$tools/nvidia/cu13/bin
if ! command -v cuobjdump >/dev/null || ! command -v nvdisasm >/dev/null; then
	python3 -m pip install --quiet --disable-pip-version-check --target "$tools" \
		nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm >/dev/null 2>&1
fi
if ! command -v cuobjdump >/dev/null || ! command -v nvdisasm >/dev/null; then
	echo "no cuobjdump and nvdisasm: install the CUDA Toolkit's, or"
	echo "pip install --target $tools nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm"
	exit 1
fi

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

# "IMAGE KERNEL INSTRUCTION COUNT", one line for each kind of instruction.
for image in "$images"/*.fatbin; do
	if ! cuobjdump -sass "$image" >"$work/sass"; then
		fail "$image cannot be disassembled"
		continue
	fi
	awk '/code for/ { image = $NF }
		/Function :/ { kernel = $NF; found[image " " kernel " START"]++ }
		/\/\*[0-9a-f]+\*\// {
			for (i = 2; i <= NF && i <= 4; i++)
				if ($i ~ /^[A-Z][A-Za-z0-9_.]+$/) { found[image " " kernel " " $i]++; break }
		}
		END { for (k in found) print k, found[k] }' "$work/sass" >>"$work/found"
	cuobjdump -res-usage "$image" 2>&1 | awk '/arch =/ { image = $NF }
		/Function/ { kernel = $2; sub(/:$/, "", kernel) }
		match($0, /SHARED:[0-9]+/) { print image, kernel, substr($0, RSTART + 7, RLENGTH - 7) }
		' >>"$work/shared"
	cuobjdump --dump-elf-symbols "$image" 2>/dev/null | grep -iE 'multicast' >>"$work/emulated"
done

# Every kernel of the list is in both images.
kernels=$(awk '$3 == "START" { print $2 }' "$work/found" | sort -u)
for kernel in $kernels; do
	for image in sm_90a sm_120; do
		if grep -q "^$image $kernel START" "$work/found"; then
			looked=$((looked + 1))
		else
			fail "$kernel has no code for $image"
		fi
	done
done
while read -r kernel; do
	grep -qx "$kernel" <<<"$kernels" || fail "$kernel of kernel_list.h is in no image"
done < <(sed -n 's/^\tX([a-z0-9_]*, \([a-z0-9_]*\)).*/\1/p' kernels/cuda/kernel_list.h)

while read -r glob image pattern least; do
	case $glob in '' | '#'*) continue ;; esac
	matched=0
	for kernel in $kernels; do
		# shellcheck disable=SC2254 # a glob of the table
		case $kernel in $glob) ;; *) continue ;; esac
		for one in sm_90a sm_120; do
			[ "$image" = any ] || [ "$image" = "$one" ] || continue
			matched=1
			count=$(awk -v i="$one" -v k="$kernel" -v p="^($pattern)" \
				'$1 == i && $2 == k && $3 ~ p { n += $4 } END { print n + 0 }' \
				"$work/found")
			[ "$count" -ge "$least" ] ||
				fail "$kernel for $one has $count of $pattern, wanted $least"
		done
	done
	[ "$matched" = 1 ] || fail "$table: \"$glob\" names no kernel"
done <"$table"

while read -r image kernel instruction count; do
	case $instruction in
	LDL* | STL*)
		case $may_use_memory in *" $kernel "*) continue ;; esac
		fail "$kernel for $image uses local memory: $count $instruction"
		;;
	UTMALDG*MULTICAST*)
		[ "$image" = sm_90a ] || fail "$kernel for $image: $instruction"
		;;
	esac
done <"$work/found"
[ -s "$work/emulated" ] && fail "emulated multicast: $(head -1 "$work/emulated")"

while read -r image kernel bytes; do
	case $image in sm_120*) ;; *) continue ;; esac
	[ "$bytes" -le "$shared_most" ] || fail "$kernel has $bytes bytes of shared memory"
done <"$work/shared"

echo "$looked kernels in $(awk '{ print $1 }' "$work/found" | sort -u | tr '\n' ' ')disassembled, $failures failures"
[ "$failures" -eq 0 ] && [ "$looked" -gt 20 ]
