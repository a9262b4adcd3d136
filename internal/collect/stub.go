package collect

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"strconv"
	"strings"

	"github.com/patchmesh/patchmesh/internal/packages"
)

// The numbers of rpm's file format that a package without files needs (rpm's docs/manual/format.md and rpmtag.h).
const (
	tagSignatures = 62
	tagImmutable  = 63
	tagI18N       = 100
	sigSize       = 1000
	tagName       = 1000
	tagVersion    = 1001
	tagRelease    = 1002
	tagEpoch      = 1003
	tagSummary    = 1004
	tagSize       = 1009
	tagLicense    = 1014
	tagOS         = 1021
	tagArch       = 1022
	tagSourceRPM  = 1044
	tagProvides   = 1047
	tagProvFlags  = 1112
	tagProvVers   = 1113
	tagFormat     = 1124
	tagCompressor = 1125

	typeInt32  = 4
	typeString = 6
	typeBinary = 7
	typeArray  = 8
	typeI18N   = 9
)

// provided is one capability: "name", or "name = version".
type provided struct{ name, version string }

// stubRPM is a package of this name and version that brings no file and provides these capabilities. rpm can enter it in
// a database (--justdb), where it stands for a package of which no more is known.
func stubRPM(p packages.Installed, provides []provided) []byte {
	epoch, version := 0, p.Version
	if e, rest, ok := strings.Cut(version, ":"); ok {
		epoch, _ = strconv.Atoi(e)
		version = rest
	}
	version, release, _ := strings.Cut(version, "-")
	names, versions, flags := []string{}, []string{}, []int32{}
	for _, c := range append([]provided{{p.Name, p.Version}}, provides...) {
		names, versions = append(names, c.name), append(versions, c.version)
		f := int32(0)
		if c.version != "" {
			f = 8 // RPMSENSE_EQUAL
		}
		flags = append(flags, f)
	}
	h := header{region: tagImmutable}
	h.strings(tagI18N, typeArray, "C")
	h.strings(tagName, typeString, p.Name)
	h.strings(tagVersion, typeString, version)
	h.strings(tagRelease, typeString, release)
	h.numbers(tagEpoch, int32(epoch))
	h.strings(tagSummary, typeI18N, "installed")
	h.numbers(tagSize, 0)
	h.strings(tagLicense, typeString, "unknown")
	h.strings(tagOS, typeString, "linux")
	h.strings(tagArch, typeString, p.Arch)
	h.strings(tagSourceRPM, typeString, p.Name+"-"+version+"-"+release+".src.rpm")
	h.strings(tagProvides, typeArray, names...)
	h.numbers(tagProvFlags, flags...)
	h.strings(tagProvVers, typeArray, versions...)
	h.strings(tagFormat, typeString, "cpio")
	h.strings(tagCompressor, typeString, "gzip")
	main := h.bytes()

	var payload bytes.Buffer
	z := gzip.NewWriter(&payload)
	_, _ = z.Write([]byte("07070100000000" + strings.Repeat("0", 80) + "0000000B" + "00000000" + "TRAILER!!!\x00\x00\x00\x00")) // a bytes.Buffer takes it
	_ = z.Close()
	s := header{region: tagSignatures}
	s.numbers(sigSize, int32(len(main)+payload.Len()))
	sig := s.bytes()

	lead := make([]byte, 96)
	copy(lead, "\xed\xab\xee\xdb\x03\x00\x00\x00\x00\x01")
	copy(lead[10:75], p.Name+"-"+version+"-"+release)
	lead[77], lead[79] = 1, 5 // Linux; a signature in the form of a header
	for len(sig)%8 != 0 {
		sig = append(sig, 0)
	}
	return bytes.Join([][]byte{lead, sig, main, payload.Bytes()}, nil)
}

// header is an index of tags and the store they point into.
type header struct {
	region int32
	index  []byte
	store  []byte
	n      int32
}

func (h *header) entry(tag, kind, count int32) {
	h.index = binary.BigEndian.AppendUint32(h.index, uint32(tag))
	h.index = binary.BigEndian.AppendUint32(h.index, uint32(kind))
	h.index = binary.BigEndian.AppendUint32(h.index, uint32(len(h.store)))
	h.index = binary.BigEndian.AppendUint32(h.index, uint32(count))
	h.n++
}

func (h *header) strings(tag, kind int32, values ...string) {
	h.entry(tag, kind, int32(len(values)))
	for _, v := range values {
		h.store = append(append(h.store, v...), 0)
	}
}

func (h *header) numbers(tag int32, values ...int32) {
	for len(h.store)%4 != 0 {
		h.store = append(h.store, 0)
	}
	h.entry(tag, typeInt32, int32(len(values)))
	for _, v := range values {
		h.store = binary.BigEndian.AppendUint32(h.store, uint32(v))
	}
}

// bytes writes the header; its first entry is the region, whose trailer stands at the end of the store and points back
// over the whole index.
func (h *header) bytes() []byte {
	entries := h.index
	h.index = nil
	h.entry(h.region, typeBinary, 16)
	h.index = append(h.index, entries...)
	for _, v := range []int32{h.region, typeBinary, -16 * h.n, 16} {
		h.store = binary.BigEndian.AppendUint32(h.store, uint32(v))
	}
	out := []byte("\x8e\xad\xe8\x01\x00\x00\x00\x00")
	out = binary.BigEndian.AppendUint32(out, uint32(h.n))
	out = binary.BigEndian.AppendUint32(out, uint32(len(h.store)))
	return bytes.Join([][]byte{out, h.index, h.store}, nil)
}
