package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
)

var errShort = errors.New("payload has the wrong length")

// Type implements Message.
func (*Hello) Type() Type        { return TypeHello }
func (*Ping) Type() Type         { return TypePing }
func (*Pong) Type() Type         { return TypePong }
func (*Docs) Type() Type         { return TypeDocs }
func (*GetDoc) Type() Type       { return TypeGetDoc }
func (*Doc) Type() Type          { return TypeDoc }
func (*Have) Type() Type         { return TypeHave }
func (*HaveAdd) Type() Type      { return TypeHaveAdd }
func (*Get) Type() Type          { return TypeGet }
func (*Data) Type() Type         { return TypeData }
func (*Refuse) Type() Type       { return TypeRefuse }
func (*Status) Type() Type       { return TypeStatus }
func (*Report) Type() Type       { return TypeReport }
func (*ReportAck) Type() Type    { return TypeReportAck }
func (*Uplink) Type() Type       { return TypeUplink }
func (*LeaseAsk) Type() Type     { return TypeLeaseAsk }
func (*LeaseGrant) Type() Type   { return TypeLeaseGrant }
func (*LeaseRefuse) Type() Type  { return TypeLeaseRefuse }
func (*LeaseRenew) Type() Type   { return TypeLeaseRenew }
func (*LeaseRelease) Type() Type { return TypeLeaseRelease }
func (*SiteState) Type() Type    { return TypeSiteState }

// The JSON messages that need no rule beyond their size.
func (m *Hello) appendPayload(b []byte) ([]byte, error)        { return appendJSON(b, m) }
func (m *GetDoc) appendPayload(b []byte) ([]byte, error)       { return appendJSON(b, m) }
func (m *Report) appendPayload(b []byte) ([]byte, error)       { return appendJSON(b, m.Report) }
func (m *ReportAck) appendPayload(b []byte) ([]byte, error)    { return appendJSON(b, m) }
func (m *Uplink) appendPayload(b []byte) ([]byte, error)       { return appendJSON(b, m) }
func (m *LeaseAsk) appendPayload(b []byte) ([]byte, error)     { return appendJSON(b, m) }
func (m *LeaseGrant) appendPayload(b []byte) ([]byte, error)   { return appendJSON(b, m) }
func (m *LeaseRefuse) appendPayload(b []byte) ([]byte, error)  { return appendJSON(b, m) }
func (m *LeaseRenew) appendPayload(b []byte) ([]byte, error)   { return appendJSON(b, m) }
func (m *LeaseRelease) appendPayload(b []byte) ([]byte, error) { return appendJSON(b, m) }

func (m *Hello) parsePayload(b []byte) error        { return parseJSON(b, m) }
func (m *GetDoc) parsePayload(b []byte) error       { return parseJSON(b, m) }
func (m *Report) parsePayload(b []byte) error       { return parseJSON(b, &m.Report) }
func (m *ReportAck) parsePayload(b []byte) error    { return parseJSON(b, m) }
func (m *Uplink) parsePayload(b []byte) error       { return parseJSON(b, m) }
func (m *LeaseAsk) parsePayload(b []byte) error     { return parseJSON(b, m) }
func (m *LeaseGrant) parsePayload(b []byte) error   { return parseJSON(b, m) }
func (m *LeaseRefuse) parsePayload(b []byte) error  { return parseJSON(b, m) }
func (m *LeaseRenew) parsePayload(b []byte) error   { return parseJSON(b, m) }
func (m *LeaseRelease) parsePayload(b []byte) error { return parseJSON(b, m) }

func (m *Docs) appendPayload(b []byte) ([]byte, error) {
	if len(m.Entries) > MaxDocs {
		return nil, fmt.Errorf("%d documents: at most %d", len(m.Entries), MaxDocs)
	}
	return appendJSON(b, m)
}

func (m *Docs) parsePayload(b []byte) error {
	var raw struct {
		Entries json.RawMessage `json:"entries"`
	}
	err := parseJSON(b, &raw)
	if err == nil {
		m.Entries, err = parseList[DocEntry](raw.Entries, MaxDocs)
	}
	return err
}

func (m *Doc) appendPayload(b []byte) ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	return appendJSON(b, m)
}

func (m *Doc) parsePayload(b []byte) error {
	if err := parseJSON(b, m); err != nil {
		return err
	}
	return m.check()
}

func (m *Doc) check() error {
	if len(m.Doc) > maxDocBytes || len(m.Sig) > maxSigBytes {
		return fmt.Errorf("document of %d bytes with a signature of %d: at most %d and %d", len(m.Doc), len(m.Sig), maxDocBytes, maxSigBytes)
	}
	return nil
}

func (m *Status) appendPayload(b []byte) ([]byte, error) {
	if err := checkStatement(&m.Node); err != nil {
		return nil, err
	}
	return appendJSON(b, m.Node)
}

func (m *Status) parsePayload(b []byte) error {
	var s statement
	err := parseJSON(b, &s)
	m.Node = s.node()
	return err
}

func (m *SiteState) appendPayload(b []byte) ([]byte, error) {
	if len(m.Nodes) > MaxSiteNodes || len(m.Alive) > MaxSiteNodes {
		return nil, fmt.Errorf("state of %d nodes, %d alive: at most %d", len(m.Nodes), len(m.Alive), MaxSiteNodes)
	}
	for i := range m.Nodes {
		if err := checkStatement(&m.Nodes[i]); err != nil {
			return nil, err
		}
	}
	return appendJSON(b, m)
}

func (m *SiteState) parsePayload(b []byte) error {
	var raw struct {
		Nodes json.RawMessage `json:"nodes"`
		Alive json.RawMessage `json:"alive"`
	}
	if err := parseJSON(b, &raw); err != nil {
		return err
	}
	nodes, err := parseList[statement](raw.Nodes, MaxSiteNodes)
	if err != nil {
		return err
	}
	for i := range nodes {
		m.Nodes = append(m.Nodes, nodes[i].node())
	}
	m.Alive, err = parseList[string](raw.Alive, MaxSiteNodes)
	return err
}

func (m *Ping) appendPayload(b []byte) ([]byte, error) {
	return binary.BigEndian.AppendUint64(b, m.Nonce), nil
}
func (m *Pong) appendPayload(b []byte) ([]byte, error) {
	return binary.BigEndian.AppendUint64(b, m.Nonce), nil
}
func (m *Ping) parsePayload(b []byte) error { return parseNonce(b, &m.Nonce) }
func (m *Pong) parsePayload(b []byte) error { return parseNonce(b, &m.Nonce) }

func parseNonce(b []byte, n *uint64) error {
	if len(b) != 8 {
		return errShort
	}
	*n = binary.BigEndian.Uint64(b)
	return nil
}

// Have: 32 bytes bundle, 1 byte flags (1: wants), 4 bytes total, bitmap.
func (m *Have) appendPayload(b []byte) ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	b = append(b, m.Bundle[:]...)
	var flags byte
	if m.Wants {
		flags = 1
	}
	b = append(b, flags)
	b = binary.BigEndian.AppendUint32(b, m.Total)
	return append(b, m.Bitmap...), nil
}

func (m *Have) parsePayload(b []byte) error {
	if len(b) < 37 {
		return errShort
	}
	if b[32] > 1 {
		return fmt.Errorf("have: unknown flags %#x", b[32])
	}
	copy(m.Bundle[:], b)
	m.Wants = b[32] == 1
	m.Total = binary.BigEndian.Uint32(b[33:])
	m.Bitmap = bytes.Clone(b[37:])
	return m.check()
}

// check: a bitmap has a bit for each chunk and none beyond.
func (m *Have) check() error {
	if m.Total > MaxHaveChunks || len(m.Bitmap) != int(m.Total+7)/8 {
		return fmt.Errorf("have: %d chunks with a bitmap of %d bytes", m.Total, len(m.Bitmap))
	}
	if r := m.Total % 8; r != 0 && m.Bitmap[len(m.Bitmap)-1]>>r != 0 {
		return errors.New("have: bits set behind the last chunk")
	}
	return nil
}

// HaveAdd: 32 bytes bundle, then 4 bytes a number, at least one.
func (m *HaveAdd) appendPayload(b []byte) ([]byte, error) {
	if len(m.Numbers) == 0 || len(m.Numbers) > MaxHaveAdd {
		return nil, fmt.Errorf("have: %d numbers: 1 to %d", len(m.Numbers), MaxHaveAdd)
	}
	b = append(b, m.Bundle[:]...)
	for _, n := range m.Numbers {
		if n >= MaxHaveChunks {
			return nil, fmt.Errorf("have: chunk number %d is out of range", n)
		}
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return b, nil
}

func (m *HaveAdd) parsePayload(b []byte) error {
	if len(b) < 36 || len(b)%4 != 0 {
		return errShort
	}
	copy(m.Bundle[:], b)
	m.Numbers = make([]uint32, 0, (len(b)-32)/4)
	for b = b[32:]; len(b) > 0; b = b[4:] {
		n := binary.BigEndian.Uint32(b)
		if n >= MaxHaveChunks {
			return fmt.Errorf("have: chunk number %d is out of range", n)
		}
		m.Numbers = append(m.Numbers, n)
	}
	return nil
}

func (m *Get) appendPayload(b []byte) ([]byte, error) {
	return append(binary.BigEndian.AppendUint32(b, m.Req), m.ID[:]...), nil
}

func (m *Get) parsePayload(b []byte) error {
	if len(b) != 36 {
		return errShort
	}
	m.Req = binary.BigEndian.Uint32(b)
	copy(m.ID[:], b[4:])
	return nil
}

// dataHead is what stands before the chunk in a Data: 4 bytes request, 1 byte encoding.
const dataHead = 5

func (m *Data) appendPayload(b []byte) ([]byte, error) {
	b = binary.BigEndian.AppendUint32(b, m.Req)
	b = append(b, m.Encoding)
	return append(b, m.Payload...), nil
}

func (m *Data) parsePayload(b []byte) error {
	if len(b) < dataHead {
		return errShort
	}
	m.Req, m.Encoding, m.Payload = binary.BigEndian.Uint32(b), b[4], b[dataHead:]
	return nil
}

func (m *Refuse) appendPayload(b []byte) ([]byte, error) {
	return append(binary.BigEndian.AppendUint32(b, m.Req), byte(m.Reason)), nil
}

func (m *Refuse) parsePayload(b []byte) error {
	if len(b) != 5 {
		return errShort
	}
	m.Req, m.Reason = binary.BigEndian.Uint32(b), Reason(b[4])
	return nil
}
