package swarm

import (
	"container/heap"
	"time"
)

// clock is virtual time: what is to happen, in order.
type clock struct {
	now   time.Time
	queue occasions
	seq   int
}

type occasion struct {
	at  time.Time
	seq int
	do  func()
}

// after has do happen in d.
func (c *clock) after(d time.Duration, do func()) {
	c.seq++
	heap.Push(&c.queue, occasion{c.now.Add(max(d, 0)), c.seq, do})
}

// next lets the next thing happen. False: there is none.
func (c *clock) next() bool {
	if len(c.queue) == 0 {
		return false
	}
	o := heap.Pop(&c.queue).(occasion)
	c.now = o.at
	o.do()
	return true
}

type occasions []occasion

func (q occasions) Len() int { return len(q) }
func (q occasions) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].seq < q[j].seq
}
func (q occasions) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *occasions) Push(x any)   { *q = append(*q, x.(occasion)) }
func (q *occasions) Pop() any {
	o := *q
	x := o[len(o)-1]
	o[len(o)-1] = occasion{}
	*q = o[:len(o)-1]
	return x
}
