package node

import (
	"bufio"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/patchmesh/patchmesh/internal/status"
)

// zoneinfo is the version of the time zone rules that windows are judged by, looked for where package time looks: the
// system's, which say their version in the first line of tzdata.zi, or those that are compiled in.
func zoneinfo() string {
	if dir := os.Getenv("ZONEINFO"); dir != "" {
		return "ZONEINFO"
	}
	for _, dir := range []string{"/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/usr/lib/locale/TZ", "/etc/zoneinfo"} {
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		f, err := os.Open(dir + "/tzdata.zi")
		if err != nil {
			return "system"
		}
		defer f.Close()
		line, _ := bufio.NewReader(io.LimitReader(f, 64)).ReadString('\n')
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "# version "); ok {
			return status.Clip(v, 32)
		}
		return "system"
	}
	return runtime.Version()
}
