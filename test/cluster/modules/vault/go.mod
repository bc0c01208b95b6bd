module drover.test/cluster/vault

go 1.26.0

require (
	github.com/hashicorp/vault v1.14.2
	github.com/hashicorp/vault/sdk v0.9.2
)

replace github.com/hashicorp/vault/sdk => ./sdk

godebug x509negativeserial=1
