package cli

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// Access says which seeder to talk to. Flags win over the environment, the environment over the configuration file.
type Access struct {
	config, context, server, tokenFile, pin string
}

// AddFlags adds the flags to a command.
func (a *Access) AddFlags(f *pflag.FlagSet) {
	f.StringVar(&a.config, "config", "", "configuration `file`, or the seeder's admin.json (default ~/.config/meshctl/config.yaml)")
	f.StringVar(&a.context, "context", "", "`name` of a context in the configuration (MESHCTL_CONTEXT)")
	f.StringVar(&a.server, "server", "", "seeder `URL`: https://host:port or unix:///path (MESHCTL_SERVER)")
	f.StringVar(&a.tokenFile, "token-file", "", "`file` with the administrator's token (MESHCTL_TOKEN_FILE)")
	f.StringVar(&a.pin, "pin", "", "the seeder's `peer ID`; an https server must show it (MESHCTL_PIN)")
}

// configFile is ~/.config/meshctl/config.yaml.
type configFile struct {
	Current  string                   `yaml:"current"`
	Contexts map[string]configContext `yaml:"contexts"`
}

type configContext struct {
	URLs      []string `yaml:"urls"`
	Pin       string   `yaml:"pin"`
	TokenFile string   `yaml:"tokenFile"` // relative to the configuration file
}

// Resolve returns the access, and false when no seeder is named anywhere. A server from a flag or the environment
// takes no token and no pin from the configuration file: they belong to another server.
func (a *Access) Resolve(getenv func(string) string) (out api.Access, found bool, err error) {
	flagOr := func(flag, env string) string {
		if flag != "" {
			return flag
		}
		return getenv(env)
	}
	server := flagOr(a.server, "MESHCTL_SERVER")
	if server != "" {
		out.URLs = []string{server}
	} else if out, err = a.fromFile(getenv, flagOr(a.context, "MESHCTL_CONTEXT")); err != nil {
		return api.Access{}, false, err
	}
	if pin := flagOr(a.pin, "MESHCTL_PIN"); pin != "" {
		out.Pin = pin
	}
	if name := flagOr(a.tokenFile, "MESHCTL_TOKEN_FILE"); name != "" {
		if out.Token, err = readToken(name); err != nil {
			return api.Access{}, false, err
		}
	}
	return out, len(out.URLs) > 0, nil
}

func (a *Access) fromFile(getenv func(string) string, context string) (api.Access, error) {
	name, must := a.config, true
	if name == "" {
		name = getenv("MESHCTL_CONFIG")
	}
	if name == "" {
		dir := getenv("XDG_CONFIG_HOME")
		if dir == "" {
			dir = filepath.Join(getenv("HOME"), ".config")
		}
		name, must = filepath.Join(dir, "meshctl", "config.yaml"), context != ""
	}
	b, err := durable.ReadFile(name, maxConfigBytes)
	if errors.Is(err, fs.ErrNotExist) && !must {
		return api.Access{}, nil
	}
	if err != nil {
		return api.Access{}, problem.New(problem.InvalidFile, "configuration %s", name).Because(err)
	}
	if bytes.HasPrefix(bytes.TrimSpace(b), []byte("{")) {
		return api.ReadAccess(name)
	}
	return parseConfig(name, b, context)
}

func parseConfig(name string, b []byte, context string) (api.Access, error) {
	var file configFile
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil {
		return api.Access{}, problem.New(problem.InvalidFile, "configuration %s", name).Because(err)
	}
	if context == "" {
		context = file.Current
	}
	c, ok := file.Contexts[context]
	if !ok {
		return api.Access{}, problem.New(problem.InvalidFile, "configuration %s has no context %q", name, context).
			WithNext("set current: in the file, or give --context")
	}
	out := api.Access{URLs: c.URLs, Pin: c.Pin}
	if c.TokenFile == "" {
		return out, nil
	}
	if !filepath.IsAbs(c.TokenFile) {
		c.TokenFile = filepath.Join(filepath.Dir(name), c.TokenFile)
	}
	var err error
	out.Token, err = readToken(c.TokenFile)
	return out, err
}

// Limits of what a person's configuration has, in bytes.
const (
	maxConfigBytes = 64 << 10
	maxTokenBytes  = 4 << 10
)

// readToken refuses a file that others may read: the token is the administrator.
func readToken(name string) (string, error) {
	fail := func(err error) (string, error) {
		return "", problem.New(problem.InvalidFile, "token file %s", name).Because(err)
	}
	info, err := os.Stat(name)
	if err != nil {
		return fail(err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", problem.New(problem.InvalidFile, "token file %s can be read by others (mode %04o)", name, info.Mode().Perm()).
			WithDone("it was not used").WithNext("chmod 600 %s", name)
	}
	b, err := durable.ReadFile(name, maxTokenBytes)
	if err != nil {
		return fail(err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return fail(errors.New("want one word"))
	}
	return token, nil
}
