package rollout

// recall stops the rollout of a bundle that was revoked, whoever let it go on before. Only another revision of the policy
// goes on, with another bundle.
func (x *stepper) recall() {
	if x.w.Revoked != "" && !x.paused() {
		x.pause("revocation", "the bundle is revoked: %s", x.w.Revoked)
	}
}
