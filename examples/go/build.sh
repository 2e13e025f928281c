#!/bin/sh
# build.sh FOLDER: the example in Go, and what it needs of mapd: proto/ alone. With Debian's packages:
# apt-get install golang-go golang-google-grpc-dev golang-github-golang-protobuf-1-5-dev protoc-gen-go-1-5 protobuf-compiler
set -eu
out=${1:?usage: build.sh FOLDER}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
mkdir -p "$out"
out=$(CDPATH='' cd -- "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/src"

protoc -I "$here/../../proto" --go_out=plugins=grpc:"$work/src" "$here"/../../proto/mapd_api/v1/*.proto
cp -R "$here/session" "$work/src/session"
# Debian keeps libraries as source trees, without modules; nothing here needs a C compiler.
CGO_ENABLED=0 GO111MODULE=off GOPATH="$work:/usr/share/gocode" go build -o "$out/session" session
