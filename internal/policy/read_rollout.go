package policy

// The two places of the strategy.
const (
	pathRollout   = "spec.rolloutStrategy"
	nestedRollout = "spec.schedule.rolloutStrategy"
)

// rolloutPath is where the strategy stands.
func (r *reader) rolloutPath() string {
	if r.values[nestedRollout] != nil {
		return nestedRollout
	}
	return pathRollout
}

func (r *reader) rollout() *Rollout {
	at := r.rolloutPath()
	if r.values[at] == nil {
		return nil
	}
	if at == nestedRollout && r.values[pathRollout] != nil {
		r.invalid(r.values[pathRollout], "%s and %s are both given: keep one of them", pathRollout, nestedRollout)
		return nil
	}
	r.word(at + ".type")
	o := &Rollout{
		Batch:          r.size(at + ".batchSize"),
		BatchDelay:     r.minutes(at + ".batchDelayMinutes"),
		FromStarted:    r.word(at+".delayFrom") == "Started",
		BySite:         r.word(at+".batchBy") == "Site",
		MaxUnavailable: r.size(at + ".maxUnavailablePerSite"),
		Budget: Budget{
			Max:        r.size(at + ".failureBudget.max"),
			MinSamples: r.number(at + ".failureBudget.minSamples"),
			MaxPerSite: r.number(at + ".failureBudget.maxPerSite"),
			Rollback:   r.word(at+".failureBudget.onExceeded") == "Rollback",
		},
		ProgressDeadline: r.minutes(at + ".progressDeadlineMinutes"),
		Strict:           r.word(at+".gating") == "Strict",
	}
	if canary := at + ".canary"; r.values[canary] != nil {
		o.Canary = &Canary{Selector: r.selector(canary + ".selector"), Soak: r.minutes(canary + ".soakMinutes"), Manual: r.word(canary+".promote") == "Manual"}
		if o.Canary.Selector.IsZero() {
			r.invalid(r.near(canary+".selector.matchLabels"), "%s.selector is empty or missing: name a label that the nodes that go first have", canary)
		}
	}
	if n := r.values[at+".batchDelayMinutes"]; n != nil && o.BatchDelay > 0 && o.Batch.IsZero() && o.Canary == nil {
		r.invalid(n, "%s.batchDelayMinutes is between batches, and there is one: give %s.batchSize", at, at)
	}
	return o
}
