#!/usr/bin/env bash
# The steps of the Dockerfile; tests/e2e/test_image.py performs the same ones where there is no container engine.
#
#   charts/image.sh wheel PYTHON FOLDER           builds the wheel, with the front, into FOLDER (needs cargo)
#   charts/image.sh install PYTHON WHEELS FOLDER  makes the environment FOLDER of requirements.lock and the wheel
#   charts/image.sh warm FOLDER                   compiles Python and the packed policies; writes the bill of materials
set -euo pipefail

# What builds is in the lock file too; it stays out of what runs.
building=" semantic-version setuptools setuptools-rust "
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

locked() { # the part of requirements.lock that builds (1), or that does not (0)
	awk -v building="$building" -v wanted="$1" '
		/^[a-z]/ { split($0, parts, /[=[ ]/); keep = (index(building, " " parts[1] " ") > 0) == wanted }
		keep && !/^ *#/' "$root/requirements.lock"
}

install_locked() { # PYTHON of the environment, and which part
	local requirements
	requirements=$(mktemp)
	locked "$2" > "$requirements"
	"$pip_python" -m pip --python "$1" --disable-pip-version-check --no-input install --quiet --no-cache-dir \
		--require-hashes --no-deps --only-binary :all: --requirement "$requirements"
	rm "$requirements"
}

case ${1:-} in
wheel)
	pip_python=$2 to=$3
	build=$(mktemp -d)
	"$pip_python" -m venv --without-pip "$build"
	install_locked "$build/bin/python" 1
	"$pip_python" -m pip --python "$build/bin/python" --disable-pip-version-check wheel --quiet --no-deps --no-index \
		--no-build-isolation --wheel-dir "$to" "$root"
	rm -r "$build"
	# Read to its end, or the pipe breaks.
	"$pip_python" -m zipfile --list "$to"/sark_pdp-*.whl | grep 'sark_pdp/_front.*\.so' > /dev/null || {
		echo "the wheel has no front, which would be slow, and nobody would notice: is cargo there?" >&2
		exit 1
	}
	;;
install)
	pip_python=$2 wheels=$3 to=$4
	"$pip_python" -m venv --without-pip "$to"
	install_locked "$to/bin/python" 0
	"$pip_python" -m pip --python "$to/bin/python" --disable-pip-version-check --no-input install --quiet --no-cache-dir \
		--no-deps --no-index "$wheels"/sark_pdp-*.whl
	;;
warm)
	to=$2
	# Nobody can write them later: the root file system is read-only.
	"$to/bin/python" -m compileall -q "$to/lib"
	"$to/bin/python" -m sark_pdp.engine.wasm.shipped
	mkdir -p "$to/share"
	"$to/bin/python" "$root/charts/sbom.py" "$root/front/Cargo.lock" > "$to/share/sark-pdp.cdx.json"
	;;
*)
	sed -n 's/^#   //p' "${BASH_SOURCE[0]}" >&2
	exit 2
	;;
esac
