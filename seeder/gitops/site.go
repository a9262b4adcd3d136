package gitops

import (
	"bytes"
	"errors"
	"io"

	"go.yaml.in/yaml/v3"

	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/policy"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/wanprofile"
)

// maxSiteBytes bounds sites/NAME.yaml.
const maxSiteBytes = 16 << 10

// Site is sites/NAME.yaml. What is not said in it stays as it is.
type Site struct {
	Name     string      `yaml:"name"`
	Timezone string      `yaml:"timezone"`
	WAN      *wanProfile `yaml:"wan"`
}

// wanProfile is wanprofile.Document in YAML.
type wanProfile struct {
	Cap    string   `yaml:"cap"`
	PerDay string   `yaml:"perDay"`
	Rules  []string `yaml:"rules"`
}

// Profile is the site's WAN profile, nil if the file has none. ParseSite has checked it.
func (s Site) Profile() *wanprofile.Document {
	if s.WAN == nil {
		return nil
	}
	return &wanprofile.Document{Cap: s.WAN.Cap, PerDay: s.WAN.PerDay, Rules: s.WAN.Rules}
}

// ParseSite reads sites/NAME.yaml, strictly.
func ParseSite(name string, text []byte) (Site, error) {
	file := "sites/" + name + ".yaml"
	bad := func(err error) (Site, error) {
		return Site{}, problem.New(problem.InvalidFile, "%s", file).Because(err).WithDone("nothing was changed")
	}
	if len(text) > maxSiteBytes {
		return bad(errors.New("it is too large"))
	}
	var s Site
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&s); err != nil {
		return bad(err)
	}
	var more yaml.Node
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return bad(errors.New("a second document follows"))
	}
	switch {
	case s.Name != name:
		return bad(errors.New("name: want " + name + ", as the file is called"))
	case !manifest.ValidName(name):
		return bad(errors.New("name: want lower-case letters, digits, . _ -, at most 64"))
	}
	if s.Timezone != "" {
		if _, err := policy.LoadZone(s.Timezone); err != nil {
			return bad(err)
		}
	}
	if p := s.Profile(); p != nil {
		if _, err := p.Profile(); err != nil {
			return bad(err)
		}
	}
	return s, nil
}
