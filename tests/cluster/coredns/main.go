// CoreDNS with the three plugins that the cluster's Corefile uses (xtask/src/cluster/control_plane.rs). A full CoreDNS takes
// minutes longer to build.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/template"
)

func main() {
	// The order in which the plugins get a query.
	dnsserver.Directives = []string{"errors", "template", "kubernetes"}
	coremain.Run()
}
