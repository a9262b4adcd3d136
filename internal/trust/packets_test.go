package trust

import (
	"bytes"
	"io"
	"os"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
)

// Armour that we read, the library reads as the same bytes.
func FuzzUnarmour(f *testing.F) {
	asc, err := os.ReadFile("testdata/doc.asc")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(asc)
	f.Add([]byte("-----BEGIN PGP SIGNATURE-----\n\niA==\n-----END PGP SIGNATURE-----"))
	f.Add([]byte("-----BEGIN PGP SIGNATURE-----\nComment: x\n\n=twTO\n-----END PGP SIGNATURE-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > MaxSignatureBytes {
			return
		}
		got, err := unarmour(b, "PGP SIGNATURE")
		if err != nil {
			return
		}
		block, err := armor.Decode(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("the library does not read %q: %v", b, err)
		}
		want, err := io.ReadAll(block.Body)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q is %x, the library reads %x, %v", b, got, want, err)
		}
	})
}

// Cutting a file into packets loses no byte and adds none.
func FuzzSplit(f *testing.F) {
	for _, name := range []string{"testdata/doc.sig", "testdata/key.gpg"} {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0xc2, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		frames, err := split(b, 16)
		if err != nil {
			return
		}
		var again []byte
		for _, p := range frames {
			again = append(again, p.raw...)
		}
		if !bytes.Equal(again, b) {
			t.Errorf("%x is cut into %x", b, again)
		}
	})
}
