package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/patchmesh/patchmesh/internal/bed/postgres"
	"github.com/patchmesh/patchmesh/internal/problem"
)

// made makes an argument of any type: the same for the same n, never zero but for n of 0.
func made(t reflect.Type, n int) reflect.Value {
	v := reflect.New(t).Elem()
	if t == reflect.TypeFor[time.Time]() {
		if n > 0 {
			v.Set(reflect.ValueOf(t0.Add(time.Duration(n) * time.Minute)))
		}
		return v
	}
	switch t.Kind() {
	case reflect.String:
		v.SetString([]string{"", "s1", "s2"}[n])
	case reflect.Bool:
		v.SetBool(n > 1)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(n))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(n))
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte{byte(n), 0, 255})
		} else {
			v.Set(reflect.Append(v, made(t.Elem(), n)))
		}
	case reflect.Array:
		for i := range v.Len() {
			v.Index(i).Set(made(t.Elem(), n))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(t))
		v.SetMapIndex(made(t.Key(), n), made(t.Elem(), n))
	case reflect.Pointer:
		if n > 1 {
			v.Set(made(t.Elem(), n).Addr())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				v.Field(i).Set(made(t.Field(i).Type, n))
			}
		}
	}
	return v
}

// answers calls every method of a store with arguments that are made up and returns what each said.
func answers(t *testing.T, s *Store) map[string]string {
	t.Helper()
	out := map[string]string{}
	typ := reflect.TypeOf(s)
	for round := range 2 { // what one method wrote another reads
		for i := range typ.NumMethod() {
			m := typ.Method(i)
			for n := range 3 {
				args := []reflect.Value{reflect.ValueOf(s)}
				skip := m.Name == "Close" || m.Name == "Dump"
				for a := 1; a < m.Type.NumIn(); a++ {
					switch in := m.Type.In(a); {
					case in == reflect.TypeFor[context.Context]():
						args = append(args, reflect.ValueOf(t.Context()))
					case in.Kind() == reflect.Func || in.Kind() == reflect.Interface:
						skip = true
					default:
						args = append(args, made(in, n))
					}
				}
				if skip {
					continue
				}
				call := m.Func.Call
				if m.Type.IsVariadic() {
					call = m.Func.CallSlice
				}
				out[fmt.Sprintf("%d %s %d", round, m.Name, n)] = said(t, m.Name, call(args))
			}
		}
	}
	return out
}

func said(t *testing.T, method string, results []reflect.Value) string {
	t.Helper()
	var b strings.Builder
	for _, r := range results {
		err, ok := r.Interface().(error)
		if !ok {
			text, _ := json.Marshal(r.Interface())
			fmt.Fprintf(&b, "%s\n", text)
			continue
		}
		var pg *pgconn.PgError
		if errors.As(err, &pg) && (strings.HasPrefix(pg.Code, "42") || strings.HasPrefix(pg.Code, "25P")) {
			t.Errorf("%s: the text is not SQL of both engines: %v", method, err)
		}
		fmt.Fprintf(&b, "error %s\n", problem.CodeOf(err))
	}
	return b.String()
}

// Both engines say the same, whatever method is called: those too that no test of their own looks at.
func TestEnginesAgree(t *testing.T) {
	server := postgres.Start(t)
	lite, pg := answers(t, withSites(t, sqliteEngine().fresh(t))), answers(t, withSites(t, server.Fresh()))
	errorsOnly := 0
	for call, want := range lite {
		if got := pg[call]; got != want {
			t.Errorf("%s\nSQLite says\n%.2000s\nPostgreSQL says\n%.2000s", call, want, got)
		}
		if strings.Contains(want, "error "+string(problem.Internal)) {
			errorsOnly++
		}
	}
	if errorsOnly*4 > len(lite)*3 {
		t.Errorf("%d of %d calls failed: nothing was compared", errorsOnly, len(lite))
	}
	t.Logf("%d calls, %d of them failed alike", len(lite), errorsOnly)
}
