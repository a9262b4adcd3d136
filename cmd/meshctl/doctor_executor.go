package main

import (
	"errors"
	"io/fs"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
)

// executor looks at whether the executor, which trusts nothing that the daemon says, knows by itself whose orders and
// grants are for this machine. Without that a daemon that was taken over could show it those of another.
func (d *diagnosis) executor(file string, n status.Node) {
	c, err := install.ReadConfig(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return // nothing is installed from here
	case errors.Is(err, fs.ErrPermission):
		d.say("executor", "ok", "", "%s is not for you to read; ask as root", file)
	case err != nil:
		d.say("executor", "error", problem.CodeOf(err), "%s cannot be used: %v", file, err)
	case c.Site == "" || c.Node == "":
		d.say("executor", "warning", "", "it takes the daemon's word for who it is: write \"site: %s\" and \"node: %s\" into %s", n.Site, n.Node, file)
	case c.Site != n.Site || c.Node != n.Node:
		d.say("executor", "error", "", "%s says %s/%s, and this node is %s/%s: it refuses the orders and grants for it", file, c.Site, c.Node, n.Site, n.Node)
	default:
		d.say("executor", "ok", "", "it knows by itself that this is %s/%s", c.Site, c.Node)
	}
}
