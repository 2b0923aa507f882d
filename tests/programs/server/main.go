// hello-server answers GET /hello on one address.
package main

import (
	"flag"
	"io"
	"log"
	"net/http"
)

func main() {
	address := flag.String("address", "127.0.0.1:8090", "address to listen on")
	flag.Parse()
	http.HandleFunc("/hello", func(w http.ResponseWriter, _ *http.Request) {
		// The client is gone when this fails.
		_, _ = io.WriteString(w, "hello from go\n")
	})
	log.Fatal(http.ListenAndServe(*address, nil))
}
