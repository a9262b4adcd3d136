// Package problem is the one vocabulary for failures that a person reads: a stable code, the subject, what the
// program already did about it and what to do next. The same codes appear on the command line, in the HTTP API
// (RFC 9457 problem details) and in reports. Codes are listed in codes.go; each has a page for "meshctl explain".
//
// Packages return plain wrapped errors while they are talking to other packages and a *problem.Error where a
// person is the reader. The package is pure and safe for concurrent use.
package problem

import (
	"errors"
	"fmt"
	"strings"
)

// Exit is a process exit status of meshctl, meshd and seeder (mesh-install has its own, see package install).
type Exit int

// Exit statuses, stable, as documented in every command's help.
const (
	ExitOK           Exit = 0
	ExitUsage        Exit = 2
	ExitDegraded     Exit = 3
	ExitUnreachable  Exit = 4
	ExitVerification Exit = 5
	ExitConflict     Exit = 6
	ExitDenied       Exit = 7
	ExitTimeout      Exit = 8
	ExitNotFound     Exit = 10
	ExitInterrupted  Exit = 130
	// ExitFailure is any failure without a class of its own.
	ExitFailure Exit = 1
)

// Error is a failure with a code. Build it with New, refine it with the methods, wrap a cause with Because.
type Error struct {
	Code    Code
	Subject string // what it is about and what is wrong, in one line, no trailing full stop
	Done    string // what the program already did about it
	Next    string // what the reader can do
	Cause   error
}

// New returns an error with a code and a formatted subject.
func New(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Subject: fmt.Sprintf(format, args...)}
}

// WithDone says what the program did about it.
func (e *Error) WithDone(format string, args ...any) *Error {
	e.Done = fmt.Sprintf(format, args...)
	return e
}

// WithNext says what the reader can do next.
func (e *Error) WithNext(format string, args ...any) *Error {
	e.Next = fmt.Sprintf(format, args...)
	return e
}

// Because attaches the cause, which errors.Is and errors.As then see.
func (e *Error) Because(err error) *Error {
	e.Cause = err
	return e
}

// Error is the one-line form: "E2103: subject: cause".
func (e *Error) Error() string {
	s := string(e.Code) + ": " + e.Subject
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Is matches another *Error by code, so that errors.Is(err, problem.New(problem.ChunkCorrupt, "")) works.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Text is the form for a terminal: the error, then "done:" and "next:" lines where there is something to say.
func (e *Error) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "error[%s]: %s", e.Code, e.Subject)
	if e.Cause != nil {
		fmt.Fprintf(&b, ": %s", e.Cause)
	}
	if e.Done != "" {
		fmt.Fprintf(&b, "\n  done: %s", e.Done)
	}
	if e.Next != "" {
		fmt.Fprintf(&b, "\n  next: %s", e.Next)
	}
	return b.String()
}

// CodeOf returns the code of the first *Error in the chain, or Internal.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Internal
}

// ExitOf maps an error to the exit status of its code; nil is ExitOK.
func ExitOf(err error) Exit {
	if err == nil {
		return ExitOK
	}
	var e *Error
	if errors.As(err, &e) {
		if p, ok := pages[e.Code]; ok {
			return p.Exit
		}
	}
	return ExitFailure
}
