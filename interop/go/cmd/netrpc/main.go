// Command netrpc is the plugin that serves every net/rpc service of the interop tests.
//
//	netrpc [-tls]
//
// With -tls it uses the files of OUTRIGGER_TLS_DIR, which `helper make-tls DIR` writes. AutoMTLS is
// the host's choice and needs no flag.
package main

import (
	"crypto/tls"
	"flag"
	"os"

	"github.com/hashicorp/go-plugin"

	"outrigger.dev/interop/internal/contract"
	"outrigger.dev/interop/internal/rpcsvc"
	"outrigger.dev/interop/internal/testtls"
)

func main() {
	static := flag.Bool("tls", false, "use the certificates in OUTRIGGER_TLS_DIR")
	flag.Parse()
	contract.Register()
	contract.SpendTypeID()
	config := &plugin.ServeConfig{HandshakeConfig: contract.Handshake, Plugins: rpcsvc.Set()}
	if *static {
		config.TLSProvider = func() (*tls.Config, error) {
			return testtls.Load(os.Getenv("OUTRIGGER_TLS_DIR"))
		}
	}
	plugin.Serve(config)
}
