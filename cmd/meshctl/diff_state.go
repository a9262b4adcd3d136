package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/cli"
	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/plan"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/internal/wanprofile"
)

// planState is a file with all that a plan goes by, so that a build server can plan without reaching the seeder. It holds
// no secret: names, labels, policies and what is installed.
type planState struct {
	APIVersion string           `json:"apiVersion"`
	Kind       string           `json:"kind"` // PlanState
	AsOf       time.Time        `json:"asOf"`
	Sites      []stateSite      `json:"sites"`
	Policies   []string         `json:"policies"` // as written
	Bundles    []api.BundleInfo `json:"bundles"`
}

type stateSite struct {
	Name     string               `json:"name"`
	Timezone string               `json:"timezone"`
	WAN      *wanprofile.Document `json:"wan"`
	Today    int64                `json:"today"` // bytes of the link used on its local day
	Nodes    []stateNode          `json:"nodes"`
	Held     map[string]int64     `json:"held"` // by checksum: the most bytes of a bundle that a node of the site has
}

type stateNode struct {
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels"`
	Installed map[string]uint64 `json:"installed"` // sequence by bundle
}

const (
	planStateKind = "PlanState"
	maxPlanState  = 256 << 20 // bytes
)

// gatherState asks the seeder for all of it.
func gatherState(ctx context.Context, client *api.Client) (*planState, error) {
	fleet, err := client.Status(ctx)
	if err != nil {
		return nil, err
	}
	st := &planState{APIVersion: status.APIVersion, Kind: planStateKind, AsOf: fleet.AsOf, Sites: []stateSite{}, Policies: []string{}}
	for _, s := range fleet.Sites {
		wan, err := client.SiteWAN(ctx, s.Site)
		if err != nil {
			return nil, err
		}
		x := stateSite{Name: s.Site, Timezone: s.Timezone, WAN: &wan, Today: s.WAN.Today, Nodes: []stateNode{}, Held: map[string]int64{}}
		for _, n := range s.Nodes {
			node := stateNode{Name: n.Node.Node, Labels: n.Labels, Installed: map[string]uint64{}}
			for _, i := range n.Installed {
				node.Installed[i.Bundle] = i.Sequence
			}
			if d := n.Desired; d != nil {
				x.Held[d.Checksum.String()] = max(x.Held[d.Checksum.String()], n.Transfer.BytesHave)
			}
			x.Nodes = append(x.Nodes, node)
		}
		st.Sites = append(st.Sites, x)
	}
	infos, err := client.Policies(ctx)
	if err != nil {
		return nil, err
	}
	for _, i := range infos {
		if text := current(i); text != "" && !i.Deleted {
			st.Policies = append(st.Policies, text)
		}
	}
	st.Bundles, err = client.Bundles(ctx)
	return st, err
}

// saveState writes what gatherState found. The file appears whole.
func saveState(ctx context.Context, client *api.Client, name string, w io.Writer) error {
	st, err := gatherState(ctx, client)
	if err != nil {
		return err
	}
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(name, append(b, '\n'), 0o644); err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "wrote %s: %s, policies: %d, %s, as of %s\n", name, cli.Count(len(st.Sites), "site"), len(st.Policies), cli.Count(len(st.Bundles), "bundle"), st.AsOf.UTC().Format(time.RFC3339))
	return err
}

// parseState reads a saved state, strictly.
func parseState(r io.Reader) (*planState, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxPlanState+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxPlanState {
		return nil, fmt.Errorf("more than %d bytes", maxPlanState)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	st := new(planState)
	if err := d.Decode(st); err != nil {
		return nil, err
	}
	if st.APIVersion != status.APIVersion || st.Kind != planStateKind {
		return nil, fmt.Errorf("it is %.40q %.40q, not %q %q", st.APIVersion, st.Kind, status.APIVersion, planStateKind)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the document")
	}
	return st, nil
}

// addState takes a saved state into the world.
func addState(w *plan.World, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := parseState(f)
	if err != nil {
		return err
	}
	return st.add(w, name)
}

// add is pure but for the zones, which are compiled in.
func (st *planState) add(w *plan.World, name string) error {
	for _, s := range st.Sites {
		site := siteIn(w, s.Name)
		site.Today, site.Nodes = s.Today, nil
		if s.Timezone != "" {
			zone, err := policy.LoadZone(s.Timezone)
			if err != nil {
				return fmt.Errorf("site %.64q: %w", s.Name, err)
			}
			site.Zone = zone
		}
		if s.WAN != nil {
			profile, err := s.WAN.Profile()
			if err != nil {
				return fmt.Errorf("site %.64q: %w", s.Name, err)
			}
			site.WAN = profile
		}
		for _, n := range s.Nodes {
			site.Nodes = append(site.Nodes, plan.Node{Name: n.Name, Labels: n.Labels, Installed: n.Installed})
		}
	}
	for _, text := range st.Policies {
		if err := inForceIs(w, name, text); err != nil {
			return err
		}
	}
	distinct := map[manifest.Digest]int64{}
	for _, b := range st.Bundles {
		distinct[b.Digest] = b.Distinct
		w.Bundles = append(w.Bundles, plan.Bundle{Name: b.Name, Version: b.Version, Checksum: b.Digest, Sequence: b.Sequence, Published: b.State == api.BundleCommitted, Revoked: b.Revoked})
	}
	held := map[string]map[string]int64{}
	for _, s := range st.Sites {
		held[s.Name] = s.Held
	}
	w.Unpublished = false
	w.Missing = func(site string, d manifest.Digest) int64 { // at most: what an earlier bundle left there is not known here
		return max(0, distinct[d]-held[site][d.String()])
	}
	return nil
}
