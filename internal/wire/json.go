package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/patchmesh/patchmesh/internal/status"
)

func appendJSON(b []byte, v any) ([]byte, error) {
	j, err := json.Marshal(v)
	return append(b, j...), err
}

// parseJSON reads one object and nothing else.
func parseJSON(b []byte, v any) error {
	if len(b) == 0 || b[0] != '{' {
		return errors.New("payload is not a JSON object")
	}
	return json.Unmarshal(b, v)
}

// parseList reads a list of at most limit entries. json.Unmarshal would build them all before anybody could count:
// a 2 MiB list of empty statements makes 600 MiB.
func parseList[T any](b []byte, limit int) ([]T, error) {
	if len(b) == 0 || string(b) == "null" {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return nil, errors.New("not a list")
	}
	l := []T{}
	for d.More() {
		if len(l) == limit {
			return nil, fmt.Errorf("list of more than %d entries", limit)
		}
		var v T
		if err := d.Decode(&v); err != nil {
			return nil, err
		}
		l = append(l, v)
	}
	return l, nil
}

// short is a list of at most MaxListed entries.
type short[T any] []T

// UnmarshalJSON implements json.Unmarshaler.
func (l *short[T]) UnmarshalJSON(b []byte) (err error) {
	*l, err = parseList[T](b, MaxListed)
	return err
}

// statement is a status.Node whose lists are short; they hide the fields of the same name.
type statement struct {
	status.Node
	Installed short[status.InstalledItem] `json:"installed"`
	Alarms    short[status.Alarm]         `json:"alarms"`
	Noted     short[status.Strike]        `json:"noted"`
	Beside    short[status.Standing]      `json:"beside"`
}

func (s *statement) node() status.Node {
	s.Node.Installed, s.Node.Alarms, s.Node.Noted, s.Node.Beside = s.Installed, s.Alarms, s.Noted, s.Beside
	return s.Node
}

func checkStatement(n *status.Node) error {
	if len(n.Beside) > MaxListed {
		return fmt.Errorf("statement of %d bundles beside: at most %d", len(n.Beside), MaxListed)
	}
	if len(n.Installed) > MaxListed || len(n.Alarms) > MaxListed || len(n.Noted) > MaxListed {
		return fmt.Errorf("statement of %d installed bundles, %d alarms and %d strikes: at most %d", len(n.Installed), len(n.Alarms), len(n.Noted), MaxListed)
	}
	return nil
}
