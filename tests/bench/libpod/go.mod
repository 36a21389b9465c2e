module lockfs.test/libpod_bench

go 1.21

require github.com/containers/podman/v4 v4.3.1
