package install_test

import (
	"testing"

	"github.com/patchmesh/patchmesh/install"
	"github.com/patchmesh/patchmesh/internal/trust"
)

// What was asked before is asked again by the same ID only if the answer from before would be one to this request: a notice of a
// pause is not answered by that of the grant before it, nor a check by what an earlier check has found.
func TestSame(t *testing.T) {
	doc := func(s string) trust.Signed { return trust.Signed{Doc: []byte(s), Sig: []byte("sig")} }
	apply := install.NewRequest(doc("manifest"), doc("policy"), "/store")
	notice := install.NewNotice(doc("policy"), "/store")
	for name, c := range map[string]struct {
		a, b install.Request
		want bool
	}{
		"an install":                           {apply, apply, true},
		"an install by a newer grant":          {apply.WithGrant(doc("1")), apply.WithGrant(doc("2")), true},
		"an order":                             {install.NewOrderRequest(doc("5"), "/store"), install.NewOrderRequest(doc("5"), "/store"), true},
		"another order":                        {install.NewOrderRequest(doc("5"), "/store"), install.NewOrderRequest(doc("6"), "/store"), false},
		"a notice of a newer grant":            {notice.WithGrant(doc("1")), notice.WithGrant(doc("2")), false},
		"a notice":                             {notice, notice, false},
		"a check":                              {install.NewAuditRequest(apply, "/store"), install.NewAuditRequest(apply, "/store"), false},
		"a check of what is installed":         {install.NewAuditRequest(install.Request{}, "/store"), install.NewAuditRequest(install.Request{}, "/store"), false},
		"an install, of what was checked only": {apply, install.NewAuditRequest(apply, "/store"), false},
	} {
		if got := c.a.Same(c.b); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
