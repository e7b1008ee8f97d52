#!/bin/sh
# Makes what a release consists of, in dist/: docs/releasing.md. Uploads nothing.
#
#   scripts/release.sh PYTHON    with the interpreter of the environment that has the project and its extra `release`
#
# Environment: BASE_IMAGE = what the images are made from, where the Dockerfile's own cannot be had (docs/docker.md).
set -eu

[ $# -eq 1 ] || { echo "usage: scripts/release.sh PYTHON" >&2; exit 2; }
python=$1
cd "$(dirname "$0")/.."
version=$("$python" -c 'from clio_client import __version__; print(__version__)')
grep -q "^## \[$version\]" CHANGELOG.md || echo "release: CHANGELOG.md has no entry for $version yet" >&2
rm -rf dist build
"$python" -m build --no-isolation
"$python" -m twine check --strict dist/*.whl dist/*.tar.gz

# Of what the wheel brings to whoever installs it, not of this environment, which has the tests' tools too.
environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT
"$python" -m venv --without-pip "$environment"
"$python" -m pip --python "$environment/bin/python" install --quiet --disable-pip-version-check \
    --constraint constraints.txt dist/*.whl
# It names the directory that the wheel came from.
rm "$environment"/lib/python3*/site-packages/clio_exporter-*.dist-info/direct_url.json
sed "s/^dynamic = \[\"version\"\]$/version = \"$version\"/" pyproject.toml >"$environment/pyproject.toml"
"$python" -m cyclonedx_py environment --output-reproducible --pyproject "$environment/pyproject.toml" \
    --mc-type application --output-format JSON --output-file "dist/clio-exporter-$version.cdx.json" "$environment/bin/python"
(cd dist && sha256sum -- *.whl *.tar.gz *.cdx.json >SHA256SUMS)

if docker info >/dev/null 2>&1; then
    for image in exporter node; do
        docker build --tag "clio-$image:$version" --target "$image" ${BASE_IMAGE:+--build-arg "BASE_IMAGE=$BASE_IMAGE"} .
    done
else
    echo "release: no Docker engine answers: images were not built" >&2
fi
ls -l dist
