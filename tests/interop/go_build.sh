# Sourced after lib.sh: Go clients, from the standard library alone.
need go

# build_go CLIENT: clients/CLIENT becomes the program $T/CLIENT.bin.
build_go() {
  cp -r "$HERE/clients/$1" "$T/$1"
  at_exit+=("chmod -R u+w $T/cache $T/path 2>/dev/null")
  (cd "$T/$1" && GOCACHE=$T/cache GOPATH=$T/path GOFLAGS=-mod=mod GOTOOLCHAIN=local GOPROXY=off \
    CGO_ENABLED=0 go build -p 1 -o "$T/$1.bin" .) || fail "the client does not build"
}
