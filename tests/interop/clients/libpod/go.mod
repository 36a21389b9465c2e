module libpod

go 1.18
