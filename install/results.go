package install

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/patchmesh/patchmesh/internal/durable"
	"github.com/patchmesh/patchmesh/internal/status"
)

// ResultsName is the file in the executor's state directory that tells the daemon what became of its requests, and what
// was done without it: by a person, or at the start of the machine. It belongs to root and may be read by everybody.
const ResultsName = "results.json"

// KindResults is the Kind of a Results.
const KindResults = "InstallResults"

// Bounds of the file.
const (
	MaxResults      = 16
	MaxResultsBytes = 4 << 20
	maxKeptChanges  = 1000 // of one result: a report has room for fewer
)

// Results is the content of the file: the last results, the newest last. Each has an ID that no other has; that of an
// answer is the request's.
type Results struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Results    []Result `json:"results"`
}

// Add returns the results with one more, within the bounds. One that has no ID gets one.
func (rs Results) Add(r Result) Results {
	if r.ID == "" {
		r.ID = rand.Text()
	}
	r.Changes = r.Changes[:min(len(r.Changes), maxKeptChanges)]
	rs.APIVersion, rs.Kind = status.APIVersion, KindResults
	rs.Results = append(slices.Clone(rs.Results), r)
	if over := len(rs.Results) - MaxResults; over > 0 {
		rs.Results = rs.Results[over:]
	}
	return rs
}

// Encode writes the file, without the oldest results if it would be too large with them.
func (rs Results) Encode() ([]byte, error) {
	for {
		b, err := json.Marshal(rs)
		if err != nil || len(b) <= MaxResultsBytes || len(rs.Results) < 2 {
			return b, err
		}
		rs.Results = rs.Results[1:]
	}
}

// Answer returns the result with an ID, nil when there is none.
func (rs Results) Answer(id string) *Result {
	i := slices.IndexFunc(rs.Results, func(r Result) bool { return id != "" && r.ID == id })
	if i < 0 {
		return nil
	}
	return &rs.Results[i]
}

// After returns the results that came after the one with an ID; all of them when it is not among them.
func (rs Results) After(id string) []Result {
	i := slices.IndexFunc(rs.Results, func(r Result) bool { return r.ID == id })
	return rs.Results[i+1:]
}

// DecodeResults reads the file. Fields that it does not know are those of a newer executor.
func DecodeResults(b []byte) (Results, error) {
	var rs Results
	if len(b) > MaxResultsBytes {
		return rs, fmt.Errorf("install results of %d bytes: at most %d", len(b), MaxResultsBytes)
	}
	if err := json.Unmarshal(b, &rs); err != nil {
		return Results{}, fmt.Errorf("install results: %w", err)
	}
	if rs.Kind != KindResults || len(rs.Results) > MaxResults {
		return Results{}, fmt.Errorf("install results: kind %q with %d results", rs.Kind, len(rs.Results))
	}
	for i, r := range rs.Results {
		err := r.validate()
		if err == nil && !validID(r.ID) {
			err = fmt.Errorf("ID %.80q is not one", r.ID)
		}
		if err != nil {
			return Results{}, fmt.Errorf("install result %d: %w", i, err)
		}
	}
	return rs, nil
}

// ReadResults reads the file in the executor's state directory, as the daemon does: no link is followed, it must be a
// regular file, and no more is read than the bound. None are there before the first run.
func ReadResults(dir string) (Results, error) {
	b, err := readForeign(filepath.Join(dir, ResultsName), MaxResultsBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return Results{}, nil
	}
	if err != nil {
		return Results{}, err
	}
	return DecodeResults(b)
}

// validID accepts letters, digits and dashes.
func validID(s string) bool {
	for _, c := range s {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-':
		default:
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// results reads the file under the lock. One that is damaged is begun anew: what it held is lost to the daemon only.
func (s *session) results() Results {
	rs, err := ReadResults(s.state.dir)
	if err != nil {
		s.Log.Warn("results of earlier runs are lost", "err", err)
	}
	return rs
}

// publish tells the daemon. That it cannot be told changes nothing of what was done.
func (s *session) publish(r Result) {
	b, err := s.results().Add(r).Encode()
	if err == nil {
		err = durable.WriteFile(s.state.path(ResultsName), b, 0o644)
	}
	if err != nil {
		s.Log.Warn("the daemon cannot be told of the result", "err", err)
	}
}

// answered returns what an earlier run answered to this very request, nil when none did. Whoever starts the executor
// may start it once too often.
func (s *session) answered(r Request) *Result {
	if r.ID == "" {
		return nil
	}
	return s.results().Answer(r.ID)
}

// stale is the answer to a request of an earlier run of the machine: whoever wrote it has lost its memory since, and
// the window that it was for may be closed.
func stale(r Request) *Result {
	if r.Boot == "" || r.Boot == bootID() {
		return nil
	}
	no := newResult(Deferred, ExitDeferred, status.Deferred, ReasonStale)
	no.Detail = "the request is from before the machine was started"
	return &no
}

// Fresh returns the request with an ID of its own, bound to the present run of the machine if that can be known.
func (r Request) Fresh() Request {
	r.ID, r.Boot = rand.Text(), bootID()
	if r.Boot == noBootID {
		r.Boot = ""
	}
	return r
}

// noBootID is what bootID returns where the kernel does not show it.
const noBootID = "unknown"
