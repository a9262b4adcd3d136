package seeder

import (
	"net/http"
	"testing"

	"github.com/patchmesh/patchmesh/internal/api"
)

// A token that stands in the scripts of every machine fills no disk.
func TestScriptsAreBounded(t *testing.T) {
	b := start(t, nil)
	token := b.access("scripts", api.RoleNode)
	post := func(host string, want int) {
		t.Helper()
		if w := b.as(token, "POST", api.PathLegacy, `{"host": "`+host+`", "status": "success", "bundle": "app"}`); w.Code != want {
			t.Fatalf("%s: %d %s", host, w.Code, w.Body)
		}
	}
	post("till-1", http.StatusNoContent)
	b.scripts.SetBurst(0) // all the others have had theirs
	post("till-2", http.StatusTooManyRequests)
	said, err := b.db.UnsignedAt(t.Context(), b.now(), "", "", 10)
	if err != nil || len(said) != 1 || said[0].Host != "till-1" {
		t.Errorf("%+v, %v", said, err)
	}
}
