package seeder

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/patchmesh/patchmesh/internal/api"
	"github.com/patchmesh/patchmesh/internal/manifest"
	"github.com/patchmesh/patchmesh/internal/problem"
	"github.com/patchmesh/patchmesh/internal/status"
	"github.com/patchmesh/patchmesh/seeder/fleet"
)

// Of deliveries.
const (
	letterTries   = 12 // over some nine hours
	letterTimeout = 10 * time.Second
	letterBatch   = 100 // of one webhook in one round
	roundEvery    = time.Second
	manyHooks     = 8 // at one time
)

// again is how long after so many tries a letter is tried anew: from one second, four times as long each time, at most
// two hours.
func again(tries int) time.Duration {
	d := time.Second
	for range tries - 1 {
		if d *= 4; d > 2*time.Hour {
			return 2 * time.Hour
		}
	}
	return d
}

// sign is the value of api.HeaderSignature.
func sign(secret string, at time.Time, body []byte) string {
	h := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(h, "%d.", at.Unix())
	h.Write(body)
	return fmt.Sprintf("t=%d,v1=%s", at.Unix(), hex.EncodeToString(h.Sum(nil)))
}

// post sends events to webhooks. What happens is first written to the queue on disk, then sent, each webhook's in its
// order; what a kill loses is what happened since the last round.
type post struct {
	db     *fleet.Store
	log    *slog.Logger
	now    func() time.Time
	events *events
	client *http.Client
	after  int64 // of the events: up to here they are queued
}

func newPost(db *fleet.Store, log *slog.Logger, now func() time.Time, e *events) *post {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost, t.IdleConnTimeout, t.MaxResponseHeaderBytes = 1, 30*time.Second, 16<<10
	return &post{db: db, log: log, now: now, events: e, after: e.newest(), client: &http.Client{Transport: t, Timeout: letterTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}} // the body was signed for one place
}

func (p *post) run(ctx context.Context) error {
	defer p.client.CloseIdleConnections()
	t := time.NewTicker(roundEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return p.last(context.WithoutCancel(ctx))
		}
		if err := p.round(ctx); err != nil && ctx.Err() == nil {
			p.log.Error("webhooks not served; trying again", "in", roundEvery.String(), "err", err)
		}
	}
}

// last queues what happened since the last round; it is sent by the next run.
func (p *post) last(ctx context.Context) error {
	hooks, err := p.db.Webhooks(ctx)
	if err != nil {
		return err
	}
	return p.collect(ctx, hooks)
}

// round queues what happened and sends what is due.
func (p *post) round(ctx context.Context) error {
	hooks, err := p.db.Webhooks(ctx)
	if err != nil {
		return err
	}
	if err := p.collect(ctx, hooks); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(manyHooks)
	for _, h := range hooks {
		g.Go(func() error { return p.serve(ctx, h) })
	}
	return g.Wait()
}

// collect writes new events to the queues of those who want them.
func (p *post) collect(ctx context.Context, hooks []fleet.Webhook) error {
	for {
		list, whole, _ := p.events.since(p.after, watchBatch)
		if !whole {
			p.log.Error("events were lost before they were queued for webhooks")
			p.after = p.events.newest()
			return nil
		}
		if len(list) == 0 {
			return nil
		}
		var letters []fleet.Letter
		for _, e := range list {
			b, err := json.Marshal(e)
			if err != nil {
				return err
			}
			for _, h := range hooks {
				if h.Events == "" || slices.Contains(strings.Split(h.Events, ","), e.Kind) {
					letters = append(letters, fleet.Letter{Webhook: h.Name, Event: string(b), At: e.At, Due: p.now()})
				}
			}
		}
		if len(letters) > 0 {
			dropped, err := p.db.PostLetters(ctx, letters)
			if err != nil {
				return err
			}
			if dropped > 0 {
				p.log.Error("events dropped: a webhook's queue is full", "events", dropped, "most", fleet.MaxLetters)
			}
		}
		p.after = list[len(list)-1].ID
	}
}

// serve sends what is due to one webhook, the oldest first. One that cannot be sent holds up those after it, until it is
// dead: they would not arrive either, and order is worth something.
func (p *post) serve(ctx context.Context, h fleet.Webhook) error {
	letters, err := p.db.NextLetters(ctx, h.Name, letterBatch)
	if err != nil {
		return err
	}
	for _, l := range letters {
		now := p.now()
		if l.Due.After(now) {
			return nil
		}
		err := p.send(ctx, h, l, now)
		switch {
		case ctx.Err() != nil:
			return nil // it was not the receiver's fault
		case err == nil:
			if err := p.db.Delivered(ctx, l, now); err != nil {
				return err
			}
			continue
		}
		l.Tries++
		l.Error, l.Due = status.Clip(err.Error(), 256), now.Add(again(l.Tries))
		dead := l.Tries >= letterTries
		if dead {
			p.log.Error("event given up for a webhook", "webhook", h.Name, "tries", l.Tries, "err", err)
		}
		if err := p.db.NotDelivered(ctx, l, dead, now); err != nil {
			return err
		}
		if !dead {
			return nil
		}
	}
	return nil
}

func (p *post) send(ctx context.Context, h fleet.Webhook, l fleet.Letter, now time.Time) error {
	body := []byte(l.Event)
	if h.Format == "alertmanager" {
		var e api.Event
		if err := json.Unmarshal(body, &e); err != nil {
			return err
		}
		var err error
		if body, err = json.Marshal(alerts(e, now)); err != nil {
			return err
		}
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", Software())
	r.Header.Set(api.HeaderIdempotency, fmt.Sprintf("letter-%d", l.ID)) // a letter may arrive twice
	r.Header.Set(api.HeaderSignature, sign(h.Secret, now, body))
	resp, err := p.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // only so that the connection can be used again
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("answered %s", resp.Status)
	}
	return nil
}

// alert is one of Prometheus Alertmanager's API v2 (POST /api/v2/alerts).
type alert struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    time.Time         `json:"startsAt"`
	EndsAt      *time.Time        `json:"endsAt,omitempty"`
}

// ended is the bad news that good news ends, and how severe it may have been: labels are an alert's identity.
type ended struct {
	name       string
	severities []string
}

// alerts is an event as Alertmanager takes it. Good news ends at once the alert that the bad one began.
func alerts(e api.Event, now time.Time) (out []alert) {
	was, ends := ended{e.Name, []string{e.Severity}}, (*time.Time)(nil)
	if bad, ok := map[string]ended{
		"returned": {"silent", []string{"warning"}},
		"released": {"added", []string{"critical"}},
		"resumed":  {"paused", []string{"critical", "info"}}, // by its budget, by a person
	}[e.Name]; ok {
		was, ends = bad, &now
	}
	for _, severity := range was.severities {
		labels := map[string]string{"alertname": "patchmesh " + e.Kind + " " + was.name, "severity": severity}
		for k, v := range map[string]string{"policy": e.Policy, "site": e.Site, "node": e.Node, "subject": e.Subject} {
			if v != "" {
				labels[k] = v
			}
		}
		out = append(out, alert{Labels: labels, Annotations: map[string]string{"summary": e.Text, "code": e.Code}, StartsAt: e.At, EndsAt: ends})
	}
	return out
}

func (s *Seeder) webhookRoutes(handle func(string, string, route)) {
	handle("GET", api.PathWebhooks, func(_ http.ResponseWriter, r *http.Request) (any, error) {
		list, err := s.db.Webhooks(r.Context())
		out := make([]api.WebhookInfo, len(list))
		for i, h := range list {
			out[i] = webhookInfo(h)
		}
		return out, err
	})
	handle("POST", api.PathWebhooks, s.postWebhook)
	handle("DELETE", api.PathWebhook, func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return nil, s.db.RemoveWebhook(r.Context(), r.PathValue("name"))
	})
	handle("GET", api.PathDeadLetters, s.getDeadLetters)
}

// eventKinds are the kinds of api.Event that a webhook may ask for.
func eventKinds() []string {
	return []string{"rollout", "site", "node", "quarantine", "bundle", "policy", "sync"}
}

func (s *Seeder) postWebhook(w http.ResponseWriter, r *http.Request) (any, error) {
	var q api.WebhookSpec
	if err := api.ReadJSON(w, r, api.MaxBody, &q); err != nil {
		return nil, err
	}
	about(r, q.Name)
	if q.Format == "" {
		q.Format = "patchmesh"
	}
	switch {
	case !manifest.ValidName(q.Name):
		return nil, problem.New(problem.Usage, "webhook name %.80q: want lower-case letters, digits, . _ -, at most 64", q.Name)
	case q.Format != "patchmesh" && q.Format != "alertmanager":
		return nil, problem.New(problem.Usage, "format %.20q: want patchmesh or alertmanager", q.Format)
	case q.Secret != "" && (len(q.Secret) < 16 || len(q.Secret) > 256):
		return nil, problem.New(problem.Usage, "a secret has 16 to 256 bytes")
	}
	for _, k := range q.Events {
		if !slices.Contains(eventKinds(), k) {
			return nil, problem.New(problem.Usage, "event kind %.40q: want %s", k, strings.Join(eventKinds(), ", "))
		}
	}
	if err := checkHookURL(q.URL); err != nil {
		return nil, err
	}
	if q.Secret == "" {
		q.Secret = randomHex(32)
	}
	h := fleet.Webhook{Name: q.Name, URL: q.URL, Events: strings.Join(q.Events, ","), Format: q.Format, Secret: q.Secret, Created: s.now().UTC().Truncate(time.Second)}
	if err := s.db.PutWebhook(r.Context(), h); err != nil {
		return nil, err
	}
	out := webhookInfo(h)
	out.Secret = h.Secret
	return out, nil
}

// checkHookURL lets events out over https, or to a program on this machine.
func checkHookURL(text string) error {
	u, err := url.Parse(text)
	bad := err != nil || len(text) > 1024 || u.Host == "" || u.User != nil || u.Fragment != ""
	if !bad && u.Scheme == "http" {
		addr, err := netip.ParseAddr(u.Hostname())
		bad = err != nil || !addr.Unmap().IsLoopback()
	} else if !bad {
		bad = u.Scheme != "https"
	}
	if bad {
		return problem.New(problem.Usage, "webhook URL %.200q: want https://host/path without user and password, or http://127.0.0.1:port/path", text)
	}
	return nil
}

func webhookInfo(h fleet.Webhook) api.WebhookInfo {
	out := api.WebhookInfo{WebhookSpec: api.WebhookSpec{Name: h.Name, URL: h.URL, Events: []string{}, Format: h.Format}, Created: h.Created,
		Delivered: h.Delivered, Waiting: h.Waiting, Dead: h.Dead, LastError: h.LastError, LastTry: perhaps(h.LastTry)}
	if h.Events != "" {
		out.Events = strings.Split(h.Events, ",")
	}
	return out
}

func (s *Seeder) getDeadLetters(_ http.ResponseWriter, r *http.Request) (any, error) {
	after, limit, err := pageIn(r, 100, 1000)
	if err != nil {
		return nil, err
	}
	list, err := s.db.DeadLetters(r.Context(), r.PathValue("name"), after, limit)
	out := make([]api.DeadLetter, len(list))
	for i, l := range list {
		out[i] = api.DeadLetter{ID: l.ID, At: l.At, Tries: l.Tries, Error: l.Error}
		if err := json.Unmarshal([]byte(l.Event), &out[i].Event); err != nil {
			return nil, fmt.Errorf("letter %d: %w", l.ID, err)
		}
	}
	return out, err
}
