// Naive is how one must not switch: it deletes the link and makes it anew, and it fills the release under its final
// name. The crash tests use it to show that they would notice. It takes ROOT/NAME, a directory to copy and a name.
package main

import (
	"os"
	"path/filepath"
)

func main() {
	base, from, dir := os.Args[1], os.Args[2], os.Args[3]
	check(os.CopyFS(filepath.Join(base, "releases", dir), os.DirFS(from)))
	check(os.Remove(filepath.Join(base, "current")))
	check(os.Symlink("releases/"+dir, filepath.Join(base, "current")))
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
