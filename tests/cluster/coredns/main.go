// CoreDNS with the plugins of the cluster's Corefile (xtask/src/cluster/control_plane.rs), and of a test of Kubernetes that runs
// a DNS server of its own. A full CoreDNS takes minutes longer to build.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/template"
)

func main() {
	// The order in which the plugins get a query.
	dnsserver.Directives = []string{"errors", "log", "template", "hosts", "kubernetes"}
	coremain.Run()
}
