package durable

import (
	"fmt"
	"io"
	"os"
)

// ReadFile returns the content of a file of at most limit bytes. A larger one, whatever its size on disk says, is an error
// and never in memory as a whole: a device or a pipe that is named by mistake does not fill it.
func ReadFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	return b, nil
}
